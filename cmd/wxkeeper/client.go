package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/internal/logging"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/internal/setting"
	"github.com/wxkeeper/wxkeeper/messages"
)

// clientFlags are the flags of the verbs that send a request to a worker.
type clientFlags struct {
	Timeout time.Duration `default:"10s" help:"How long to wait for the answer."`
}

// accountFlag is the flag of the verbs whose request is about one account.
type accountFlag struct {
	AppID string `name:"appid" placeholder:"APPID" help:"The account. Default: WECHAT_APPID, or the account of a worker that has only one."`
}

// Validate is called by kong. It refuses an AppID that cannot exist before a request is sent.
func (a accountFlag) Validate() error { return checkAppIDs(a.AppID) }

// checkAppIDs checks the values of --appid; an empty value means that the flag was not given.
func checkAppIDs(appids ...string) error {
	for _, id := range appids {
		if id == "" {
			continue
		}
		if err := messages.CheckAppID(id); err != nil {
			return fmt.Errorf("--appid: %w", err)
		}
	}
	return nil
}

// or returns the account of the flag, or else of the environment.
func (a accountFlag) or(cfg config.Config) string { return cmp.Or(a.AppID, cfg.AppID) }

// request connects, calls send, and explains its error.
func (f *clientFlags) request(ctx context.Context, t *terminal,
	send func(context.Context, *messages.Client, config.Config) error) error {
	if f.Timeout <= 0 {
		return usage(fmt.Errorf("--timeout: %s is not a positive duration", f.Timeout))
	}
	cfg, err := config.Load(nil)
	if err != nil {
		return err
	}
	if cfg.AppID != "" {
		if err := messages.CheckAppID(cfg.AppID); err != nil {
			return setting.Errorf("WECHAT_APPID", "%w", err)
		}
	}
	requesting, end := context.WithCancelCause(ctx)
	defer end(nil)
	nc, err := connect(ctx, t, cfg, onViolation(cfg, func(v *violationError) { end(v) }))
	if err != nil {
		return err
	}
	defer nc.Close()
	requesting, cancel := context.WithTimeout(requesting, f.Timeout)
	defer cancel()
	client := messages.NewClient(nc.Conn, cfg.SubjectPrefix)
	client.FailFast = true // a person waits for the answer
	err = send(requesting, client, cfg)
	var reply *messages.Error
	var other *messages.OtherReplyError
	var violation *violationError
	switch server := redact.URLs(strings.Join(nc.Opts.Servers, ",")); {
	case err == nil, errors.As(err, &reply):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(context.Cause(requesting), &violation): // the request itself ends without an answer
		return violation
	case errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("no worker answers on %s.> at %s: start `wxkeeper run`, or set NATS_URL or "+
			"WXKEEPER_SUBJECT_PREFIX", cfg.SubjectPrefix, server)
	case errors.As(err, &other):
		return fmt.Errorf("no worker at %s answers within %s, but %s", server, f.Timeout, other.What)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("no answer from %s within %s: the worker hangs or has gone", server, f.Timeout)
	}
	return err
}

// connect connects to the NATS server of the environment. It does not wait for a server that is away.
func connect(ctx context.Context, t *terminal, cfg config.Config, extra ...nats.Option) (*natsconn.Conn, error) {
	// Without this log, what NATS reports asynchronously would look like a missing answer.
	log, err := logging.New(t.err, "text", "error")
	if err != nil {
		return nil, err
	}
	c, found, err := cfg.Client("wxkeeper client", embedded.Consumers)
	if err != nil {
		return nil, err
	}
	c.URL, c.FailFast, c.Logger = cmp.Or(c.URL, nats.DefaultURL), true, log
	nc, err := natsconn.Connect(ctx, c, extra...)
	var unreachable *natsconn.UnreachableError
	switch {
	case err == nil:
		return nc, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &unreachable) && cfg.NATSURL == "" && unreachable.Reached:
		return nil, fmt.Errorf("no wxkeeper at %s: %s: another process may listen there: set WXKEEPER_NATS_LISTEN as "+
			"`wxkeeper run` has it, or NATS_URL", unreachable.URL, unreachable.Why)
	case errors.As(err, &unreachable) && cfg.NATSURL == "":
		return nil, fmt.Errorf("no wxkeeper at %s: %s: start `wxkeeper run`, or set NATS_URL", unreachable.URL,
			unreachable.Why)
	case errors.As(err, &unreachable): // `wxkeeper run` would not start this server
		return nil, fmt.Errorf("no wxkeeper at %s (NATS_URL): %s", unreachable.URL, unreachable.Reason())
	case errors.Is(err, nats.ErrAuthorization) && cfg.NATSURL == "" && found == nil && c.Token == "" && c.User == "":
		return nil, fmt.Errorf("NATS at %s demands a token, and no wxkeeper runs with the data directory %s: set "+
			"WXKEEPER_DATA_DIR to the directory of the wxkeeper that runs, or set NATS_TOKEN", c.URL, cfg.DataDir)
	}
	return nil, err
}
