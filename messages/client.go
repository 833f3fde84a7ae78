package messages

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
)

// Client sends requests to the workers. It is safe for concurrent use. Make one Client for a connection: its
// subscription for replies lasts as long as the connection.
//
// Each method blocks until the reply arrives or ctx ends. A ctx without a deadline gets [DefaultTimeout]. While
// no worker listens, for example because the only one is being restarted, the method sends the request again,
// at growing intervals, until ctx ends. It repeats a request for no other reason: the caller decides what to do
// if a worker is overloaded or does not reply.
//
// The error of a method matches, with errors.Is and errors.As:
//   - [ErrInvalidAppID] if the AppID of the request is malformed; nothing was sent,
//   - *[Error] if a worker refused the request, and so [ErrRejected], [ErrNoCredential] and so on by its
//     symbol,
//   - [ErrReply] if a reply arrived that is not of this contract,
//   - *[OtherReplyError], and so [ErrReply] and the error of ctx, if nothing but messages of others arrived until ctx
//     ended: see [HeaderReply],
//   - nats.ErrNoResponders if no worker listened until ctx ended; it matches the error of ctx too,
//   - context.DeadlineExceeded or context.Canceled if ctx ended before the reply arrived,
//   - another error of nats.go.
type Client struct {
	// FailFast makes the methods return nats.ErrNoResponders at once if no worker listens. Do not change it
	// while a method runs.
	FailFast bool

	prefix   string
	exchange exchange
}

// ErrReply is returned for a reply that is not the JSON of this contract. A worker sends none.
var ErrReply = errors.New("messages: the reply is not the JSON of this contract")

// ErrOtherRecord is returned for a reply about another account or kind. A worker sends none. Its value would make the
// caller act for that account. errors.Is(ErrOtherRecord, ErrReply) is true.
var ErrOtherRecord = fmt.Errorf("%w: it is the record of another key", ErrReply)

// DefaultTimeout limits a request whose context has no deadline. A worker replies earlier, except to
// [Client.RefreshCredential]: if WeChat is slow, that may take 13 s (docs/consumers.md).
const DefaultTimeout = 10 * time.Second

// A request is sent again after pauseMin if no worker listens. The pause doubles each time, up to pauseMax.
const (
	pauseMin = 50 * time.Millisecond
	pauseMax = time.Second
)

// NewClient returns a client that uses a connection. An empty prefix is [DefaultPrefix].
func NewClient(nc *nats.Conn, prefix string) *Client {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	return &Client{prefix: prefix, exchange: exchange{nc: nc}}
}

// ResolveCode returns WeChat's answer unchanged; decode it into a [Code].
func (c *Client) ResolveCode(ctx context.Context, req ResolveCodeRequest) (RawCode, error) {
	reply, err := c.request(ctx, SubjectCodeResolve, req.AppID, req)
	var members map[string]json.RawMessage
	if err == nil && (json.Unmarshal(reply, &members) != nil || len(members) == 0) {
		return nil, ErrReply
	}
	return reply, err
}

// GetCredential returns the current credential. Its error is [ErrOtherRecord] if the reply is one of another
// account or kind, and matches [ErrReply] and [ErrInvalidCredential] if no worker can have made it.
func (c *Client) GetCredential(ctx context.Context, req GetCredentialRequest) (Credential, error) {
	v, err := decode[Credential](c.request(ctx, SubjectCredentialGet, req.AppID, req))
	switch {
	case err != nil:
		return Credential{}, err
	case isOther(req.AppID, v.AppID) || v.Kind != cmp.Or(req.Kind, AccessToken):
		return Credential{}, ErrOtherRecord
	}
	if err := v.Validate(); err != nil {
		return Credential{}, fmt.Errorf("%w: %w", ErrReply, err)
	}
	return v, withTime("refresh_at", v.RefreshAt)
}

// RefreshCredential reports that WeChat refused a credential. Its error is [ErrOtherRecord] if the reply is about
// another account or kind.
func (c *Client) RefreshCredential(ctx context.Context, req RefreshCredentialRequest) (Refreshed, error) {
	v, err := decode[Refreshed](c.request(ctx, SubjectCredentialRefresh, req.AppID, req))
	switch {
	case err != nil:
		return Refreshed{}, err
	case isOther(req.AppID, v.AppID) || v.Kind != cmp.Or(req.Kind, AccessToken):
		return Refreshed{}, ErrOtherRecord
	}
	return v, withTime("expires_at", v.ExpiresAt)
}

// SignJSSDK signs the URL of a web page for wx.config. Its error is [ErrOtherRecord] if the reply is for another
// account.
func (c *Client) SignJSSDK(ctx context.Context, req SignJSSDKRequest) (JSSDKSignature, error) {
	v, err := decode[JSSDKSignature](c.request(ctx, SubjectJSSDKSign, req.AppID, req))
	if err == nil && isOther(req.AppID, v.AppID) {
		return JSSDKSignature{}, ErrOtherRecord
	}
	return v, err
}

// SignCard signs a card for wx.addCard, or a choice of cards for wx.chooseCard.
func (c *Client) SignCard(ctx context.Context, req SignCardRequest) (CardSignature, error) {
	return decode[CardSignature](c.request(ctx, SubjectCardSign, req.AppID, req))
}

// Status returns what one worker knows of the credentials. Its error is [ErrOtherRecord] if a request for one account
// is answered with credentials of another.
func (c *Client) Status(ctx context.Context, req StatusRequest) (Status, error) {
	v, err := decode[Status](c.request(ctx, SubjectStatus, req.AppID, req))
	other := func(s CredentialStatus) bool { return isOther(req.AppID, s.AppID) }
	if err == nil && slices.ContainsFunc(v.Credentials, other) {
		return Status{}, ErrOtherRecord
	}
	return v, err
}

// withTime returns an error if a reply lacks a time that workers always send. Shown, it would be the year 1.
func withTime(name string, t time.Time) error {
	if t.IsZero() {
		return fmt.Errorf("%w: it lacks %s", ErrReply, name)
	}
	return nil
}

// isOther reports whether a reply is about another account than the request. A request without an account is answered
// for the only account of the workers.
func isOther(asked, replied string) bool { return asked != "" && replied != asked }

// request sends req and returns the body of the reply. If req names an account, it goes to the account's own
// subject: a permission for one account is then enough.
func (c *Client) request(ctx context.Context, subject, appid string, req any) (json.RawMessage, error) {
	subject = c.prefix + "." + subject
	if appid != "" {
		// No worker listens on the subject that a malformed AppID makes, so the request would be repeated until
		// ctx ends.
		if err := CheckAppID(appid); err != nil {
			return nil, fmt.Errorf("messages: request %s: %w", subject, err)
		}
		subject += "." + appid
	}
	body, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("messages: request %s: %w", subject, err)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	reply, err := c.exchange.request(ctx, subject, body)
	for pause := pauseMin; errors.Is(err, nats.ErrNoResponders); pause = min(2*pause, pauseMax) {
		if c.FailFast {
			return nil, fmt.Errorf("messages: request %s: no worker listens: %w", subject, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			reply, err = c.exchange.request(ctx, subject, body)
		}
		// ctx may also have ended during the last request; then err is the error of ctx, and ErrNoResponders is
		// added.
		if err != nil && ctx.Err() != nil {
			return nil, fmt.Errorf("messages: request %s: no worker listens: %w: %w", subject, nats.ErrNoResponders,
				ctx.Err())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("messages: request %s: %w", subject, err)
	}
	if e := decodeError(reply.Header, reply.Data); e != nil {
		return nil, e
	}
	return reply.Data, nil
}

// decode decodes the reply of request, unless there is an error.
func decode[T any](reply json.RawMessage, err error) (T, error) {
	var v T
	if err != nil {
		return v, err
	}
	// The cause is left out, because it may show a part of the reply.
	if err := json.Unmarshal(reply, &v); err != nil || reflect.ValueOf(v).IsZero() {
		return v, ErrReply
	}
	return v, nil
}
