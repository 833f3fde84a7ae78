package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/config"
)

type healthVerb struct {
	URL     string        `arg:"" optional:"" help:"Default: /readyz of WXKEEPER_HTTP_ADDR."`
	Timeout time.Duration `default:"5s" help:"How long to wait for the answer."`
}

func (healthVerb) Help() string {
	return `For the health check of a container, in which there is no shell and no curl. With the environment of a worker it asks that worker whether it is ready; with a URL it asks whoever serves it. Exit code 0: the answer was 200. Anything else: 1, and one line says why.

A check that has the container killed must ask /healthz: a worker that is not ready because NATS is away needs no restart.

Examples:

    wxkeeper health
    wxkeeper health http://127.0.0.1:8080/healthz
`
}

func (v *healthVerb) Run(ctx context.Context, t *terminal) error {
	page, err := v.page()
	if err != nil {
		return usage(err)
	}
	ctx, cancel := context.WithTimeout(ctx, v.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return usage(fmt.Errorf("<url>: %q is not a URL", page))
	}
	shown := req.URL.Redacted()
	// Without the proxy of the environment, which is there for the way to WeChat.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	var failed *url.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("not healthy: no answer from %s within %s", shown, v.Timeout)
	case errors.As(err, &failed):
		return fmt.Errorf("not healthy: %s: %w", shown, failed.Err)
	case err != nil:
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return fmt.Errorf("not healthy: %s: %w", shown, err)
	}
	said := strings.TrimSpace(string(body))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not healthy: %s: %d %s", shown, resp.StatusCode, said)
	}
	fmt.Fprintln(t.out, oneLine(said))
	return nil
}

// page is the URL to ask.
func (v *healthVerb) page() (string, error) {
	if v.Timeout <= 0 {
		return "", fmt.Errorf("--timeout: %s is not a positive duration", v.Timeout)
	}
	if v.URL != "" {
		u, err := url.Parse(v.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return "", fmt.Errorf("<url>: %q is not an http or https URL, for example http://127.0.0.1:8080/healthz", v.URL)
		}
		return v.URL, nil
	}
	cfg, err := config.Load(nil)
	if err != nil {
		return "", err
	}
	if cfg.HTTPAddr == "" {
		return "", errors.New("WXKEEPER_HTTP_ADDR: none: the worker serves no page that could be asked; name the URL of another one")
	}
	host, port, err := net.SplitHostPort(cfg.HTTPAddr)
	if err != nil {
		return "", fmt.Errorf("WXKEEPER_HTTP_ADDR: %w", err)
	}
	return "http://" + net.JoinHostPort(reachable(host), port) + "/readyz", nil
}

// reachable is the address at which a server that listens on host can be asked from this machine.
func reachable(host string) string {
	switch ip := net.ParseIP(host); {
	case host == "", ip != nil && ip.IsUnspecified() && ip.To4() != nil:
		return "127.0.0.1"
	case ip != nil && ip.IsUnspecified():
		return "::1"
	}
	return host
}
