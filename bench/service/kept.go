package service

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

// kept is a service with wxkeeper's package kv, as in examples/go.
type kept struct {
	api    string
	nc     *nats.Conn
	http   *http.Client
	handle *kv.Handle
	stop   context.CancelFunc
	done   chan struct{}
}

func newKept(ctx context.Context, c Config) (*kept, error) {
	nc, err := nats.Connect(c.Backend, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(500*time.Millisecond), nats.ReconnectBufSize(-1), nats.PingInterval(10*time.Second))
	if err != nil {
		return nil, err
	}
	reader, err := kv.NewReader(nc, kv.ReaderConfig{AppIDs: []string{c.AppID}})
	if err != nil {
		nc.Close()
		return nil, err
	}
	transport := reader.Transport(c.AppID)
	if api, err := url.Parse(c.API); err == nil {
		transport.Hosts = []string{api.Host}
	}
	ctx, stop := context.WithCancel(ctx)
	k := &kept{
		api: c.API, nc: nc, http: &http.Client{Transport: transport, Timeout: callTimeout},
		handle: reader.Handle(c.AppID, messages.AccessToken), stop: stop, done: make(chan struct{}),
	}
	go func() {
		defer close(k.done)
		_ = reader.Run(ctx) // it returns only the error of ctx
	}()
	return k, nil
}

func (k *kept) token(context.Context) (string, error) { return k.handle.Value() }

func (k *kept) call(ctx context.Context) error { return get(ctx, k.http, k.api, "") }

func (k *kept) close() {
	k.stop()
	<-k.done
	k.nc.Close()
}
