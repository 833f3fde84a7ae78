package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/logging"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/messages"
)

// asking are the flags of the verbs that ask a worker.
type asking struct {
	Timeout time.Duration `default:"10s" help:"How long to wait for the answer."`
}

// account is the flag of the verbs that ask for one account.
type account struct {
	AppID string `name:"appid" placeholder:"APPID" help:"The account. Default: WECHAT_APPID, or the only one of the worker."`
}

// Validate is called by kong: it refuses what no worker can know, before anybody is asked.
func (a account) Validate() error { return checkAppID(a.AppID) }

// checkAppID checks an --appid; empty is none.
func checkAppID(appid string) error {
	if appid == "" {
		return nil
	}
	if err := messages.CheckAppID(appid); err != nil {
		return fmt.Errorf("--appid: %w", err)
	}
	return nil
}

// or is the account, or that of the environment.
func (a account) or(cfg config.Config) string { return cmp.Or(a.AppID, cfg.AppID) }

// ask connects, lets f ask, and makes plain what went wrong.
func (a *asking) ask(ctx context.Context, t *terminal, f func(context.Context, *messages.Client, config.Config) error) error {
	if a.Timeout <= 0 {
		return usage(fmt.Errorf("--timeout: %s is not a positive duration", a.Timeout))
	}
	cfg, err := config.Load(nil)
	if err != nil {
		return usage(err)
	}
	if cfg.AppID != "" && messages.CheckAppID(cfg.AppID) != nil {
		return usage(fmt.Errorf("WECHAT_APPID: %w", messages.CheckAppID(cfg.AppID)))
	}
	asked, refuse := context.WithCancelCause(ctx)
	defer refuse(nil)
	nc, err := connect(ctx, t, cfg, onRefusal(cfg, func(r *refusalError) { refuse(r) }))
	if err != nil {
		return err
	}
	defer nc.Close()
	asked, cancel := context.WithTimeout(asked, a.Timeout)
	defer cancel()
	client := messages.NewClient(nc.Conn, cfg.SubjectPrefix)
	client.FailFast = true // somebody looks at the terminal
	err = f(asked, client, cfg)
	var answer *messages.Error
	var refused *refusalError
	switch where := redact.URLs(clientURL(cfg)); {
	case err == nil, errors.As(err, &answer):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(context.Cause(asked), &refused): // to the one who asks it is silence
		return refused
	case errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("no worker answers on %s.> at %s: start `wxkeeper run`, or set NATS_URL or WXKEEPER_SUBJECT_PREFIX", cfg.SubjectPrefix, where)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("no answer from %s within %s: the worker is stuck or gone", where, a.Timeout)
	}
	return err
}

// connect connects to the NATS server of the environment, without waiting for one to come.
func connect(ctx context.Context, t *terminal, cfg config.Config, extra ...nats.Option) (*natsconn.Conn, error) {
	// What NATS tells only asynchronously would otherwise look like silence.
	log, err := logging.New(t.err, "text", "error")
	if err != nil {
		return nil, err
	}
	url := clientURL(cfg)
	c := natsConfig(cfg, "wxkeeper client")
	c.URL, c.FailFast, c.Logger = url, true, log
	nc, err := natsconn.Connect(ctx, c, extra...)
	var unreachable *natsconn.UnreachableError
	switch {
	case err == nil:
		return nc, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &unreachable) && cfg.NATSURL == "":
		return nil, fmt.Errorf("no wxkeeper at %s: %s: start `wxkeeper run`, or set NATS_URL", unreachable.URL, unreachable.Why)
	case errors.As(err, &unreachable): // a server that somebody else runs
		return nil, fmt.Errorf("no wxkeeper at %s (NATS_URL): %s", unreachable.URL, unreachable.Why)
	}
	return nil, err
}

// natsConfig is the part of the environment that says how to connect to NATS.
func natsConfig(cfg config.Config, name string) natsconn.Config {
	return natsconn.Config{
		URL: cfg.NATSURL, Creds: cfg.NATSCreds, NKey: cfg.NATSNKey, User: cfg.NATSUser, Password: cfg.NATSPassword, Token: cfg.NATSToken,
		CA: cfg.NATSCA, Cert: cfg.NATSCert, Key: cfg.NATSKey, InboxPrefix: cfg.NATSInbox, Name: name,
	}
}

// clientURL is where the verbs look for a worker: NATS_URL, or where `wxkeeper run` with the same environment has its
// embedded server.
func clientURL(cfg config.Config) string {
	if cfg.NATSURL != "" {
		return cfg.NATSURL
	}
	host, port, err := net.SplitHostPort(cfg.NATSListen)
	if err != nil || port == "0" {
		return nats.DefaultURL
	}
	return "nats://" + net.JoinHostPort(reachable(host), port)
}
