package service

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

// consumeLimit is how long all consumers of one process may take to have the token.
const consumeLimit = 2 * time.Minute

// Consume is one process with many consumers, each with a connection of its own, as if each were a service. It prints
// Ready when all have the token, and waits for the end of ctx.
func Consume(ctx context.Context, natsURL, appid string, n int, out io.Writer) error {
	all, ctx := errgroup.WithContext(ctx)
	started, cancel := context.WithTimeout(ctx, consumeLimit)
	defer cancel()
	for range n {
		nc, err := nats.Connect(natsURL, nats.MaxReconnects(-1), nats.Timeout(30*time.Second))
		if err != nil {
			return err
		}
		defer nc.Close()
		reader, err := kv.NewReader(nc, kv.ReaderConfig{AppIDs: []string{appid}})
		if err != nil {
			return err
		}
		all.Go(func() error { return reader.Run(ctx) })
		if _, err := reader.Wait(started, appid, messages.AccessToken); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintln(out, Ready); err != nil {
		return err
	}
	_ = all.Wait() // each returns the error of ctx
	return nil
}
