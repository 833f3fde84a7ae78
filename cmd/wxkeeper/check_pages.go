package main

import (
	"bytes"
	"context"
	"net"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/config"
)

// pagesOf finds out whether a worker serves its pages already where one of this environment would, or why it could not;
// nil where it would serve none.
func pagesOf(cfg config.Config) func(context.Context) (served bool, err error) {
	if cfg.HTTPAddr == "" {
		return nil
	}
	return func(ctx context.Context) (bool, error) {
		l, err := listenHTTP(cfg.HTTPAddr)
		if err == nil {
			return false, l.Close()
		}
		host, port, split := net.SplitHostPort(cfg.HTTPAddr)
		if split != nil {
			return false, err
		}
		var said bytes.Buffer
		health := healthVerb{URL: "http://" + net.JoinHostPort(reachable(host), port) + "/healthz", Timeout: 2 * time.Second}
		if health.Run(ctx, &terminal{out: &said}) == nil && said.String() == "ok\n" {
			return true, nil
		}
		return false, err
	}
}
