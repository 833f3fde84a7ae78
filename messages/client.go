package messages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// Client asks the workers. It is safe for concurrent use.
//
// Each method blocks until the reply, or until ctx ends; a ctx without a deadline gets one of [DefaultTimeout]. While no
// worker listens (the only one is being restarted) it asks again, less and less often, until ctx ends. Nothing else is
// asked a second time: what to do about an overloaded worker, or about silence, is the caller's decision.
//
// The error of a method is, for errors.Is and errors.As:
//   - *[Error], where a worker refused, and so [ErrRejected], [ErrNoCredential] and so on by its symbol,
//   - nats.ErrNoResponders, where no worker listened until ctx ended; it is the error of ctx as well,
//   - context.DeadlineExceeded or context.Canceled, where ctx ended before the reply,
//   - any other of nats.go's.
type Client struct {
	// FailFast makes the methods return nats.ErrNoResponders at once. It must not be changed while a method runs.
	FailFast bool

	nc     *nats.Conn
	prefix string
}

// DefaultTimeout is the deadline of a request whose context has none: longer than a worker takes for its reply.
const DefaultTimeout = 10 * time.Second

const (
	pauseMin = 50 * time.Millisecond // before the next request where no worker listens, doubled each time …
	pauseMax = time.Second           // … up to this
)

// NewClient makes a client on a connection; prefix "" is [DefaultPrefix].
func NewClient(nc *nats.Conn, prefix string) *Client {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	return &Client{nc: nc, prefix: prefix}
}

// ResolveCode returns WeChat's answer as it came; decode it into a [Code].
func (c *Client) ResolveCode(ctx context.Context, req ResolveCodeRequest) (RawCode, error) {
	return c.ask(ctx, SubjectCodeResolve, req.AppID, req)
}

// GetCredential returns the current credential.
func (c *Client) GetCredential(ctx context.Context, req GetCredentialRequest) (Credential, error) {
	return into[Credential](c.ask(ctx, SubjectCredentialGet, req.AppID, req))
}

// RefreshCredential reports a credential that WeChat refused.
func (c *Client) RefreshCredential(ctx context.Context, req RefreshCredentialRequest) (Refreshed, error) {
	return into[Refreshed](c.ask(ctx, SubjectCredentialRefresh, req.AppID, req))
}

// SignJSSDK signs the URL of a web page for wx.config.
func (c *Client) SignJSSDK(ctx context.Context, req SignJSSDKRequest) (JSSDKSignature, error) {
	return into[JSSDKSignature](c.ask(ctx, SubjectJSSDKSign, req.AppID, req))
}

// SignCard signs a card for wx.addCard, or a choice for wx.chooseCard.
func (c *Client) SignCard(ctx context.Context, req SignCardRequest) (CardSignature, error) {
	return into[CardSignature](c.ask(ctx, SubjectCardSign, req.AppID, req))
}

// Status returns what one worker knows of the credentials.
func (c *Client) Status(ctx context.Context, req StatusRequest) (Status, error) {
	return into[Status](c.ask(ctx, SubjectStatus, req.AppID, req))
}

// ask uses the subject of the account where it is known: a narrow permission is enough for it.
func (c *Client) ask(ctx context.Context, subject, appid string, req any) (json.RawMessage, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("messages: %w", err)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	subject = c.prefix + "." + subject
	if appid != "" {
		subject += "." + appid
	}
	reply, err := c.nc.RequestWithContext(ctx, subject, body)
	for pause := pauseMin; errors.Is(err, nats.ErrNoResponders); pause = min(2*pause, pauseMax) {
		if c.FailFast {
			return nil, fmt.Errorf("messages: no worker listens on %s: %w", subject, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			reply, err = c.nc.RequestWithContext(ctx, subject, body)
		}
		if err != nil && ctx.Err() != nil { // also where it ended in the middle of the last of many requests
			return nil, fmt.Errorf("messages: no worker listens on %s: %w: %w", subject, nats.ErrNoResponders, ctx.Err())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("messages: asking %s: %w", subject, err)
	}
	if e := decodeError(reply.Header, reply.Data); e != nil {
		return nil, e
	}
	return reply.Data, nil
}

func into[T any](data json.RawMessage, err error) (T, error) {
	var v T
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return v, fmt.Errorf("messages: decoding the reply: %w", err)
	}
	return v, nil
}
