package kv

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/messages"
)

const apiURL = "https://api.weixin.qq.com/cgi-bin/get_api_domain_ip"

// call is what arrived at a fakeWeChat.
type call struct {
	req  *http.Request
	body string
}

// fakeWeChat is a base transport that knows which tokens live.
type fakeWeChat struct {
	mu     sync.Mutex
	living map[string]bool
	calls  []call
	open   atomic.Int64 // answers that were not closed
}

const deadAnswer = `{"errcode":40001,"errmsg":"invalid credential, access_token is invalid or not latest"}`

func (f *fakeWeChat) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		req.Body.Close()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call{req, string(body)})
	answer := deadAnswer
	if f.living[req.URL.Query().Get("access_token")] {
		answer = `{"echo":"` + string(body) + `"}`
	}
	f.open.Add(1)
	resp := answered(req, answer)
	resp.Body = &closing{Reader: resp.Body, onClose: func() { f.open.Add(-1) }}
	return resp, nil
}

func answered(req *http.Request, body string) *http.Response {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: int64(len(body)), Request: req,
		Body: io.NopCloser(strings.NewReader(body)),
	}
}

func (f *fakeWeChat) kill(token string) { f.set(token, false) }

func (f *fakeWeChat) set(token string, lives bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.living == nil {
		f.living = make(map[string]bool)
	}
	f.living[token] = lives
}

func (f *fakeWeChat) called() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// fleet answers the reports of a Reader, in the place of the workers.
type fleet struct {
	mu       sync.Mutex
	reported []messages.RefreshCredentialRequest
	answer   func(context.Context) (messages.Refreshed, error)
}

func (f *fleet) report(ctx context.Context, r messages.RefreshCredentialRequest) (messages.Refreshed, error) {
	f.mu.Lock()
	f.reported = append(f.reported, r)
	f.mu.Unlock()
	return f.answer(ctx)
}

func (f *fleet) reports() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.reported)
}

// scene is a Transport whose Reader holds a token, between a fake WeChat and a fake fleet. It needs no network, so it can
// stand in a bubble of virtual time.
type scene struct {
	*Transport
	tb     testing.TB
	wechat *fakeWeChat
	fleet  *fleet
}

func newScene(tb testing.TB, answer func(context.Context) (messages.Refreshed, error)) *scene {
	tb.Helper()
	r, err := NewReader(new(nats.Conn), ReaderConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	s := &scene{Transport: r.Transport("wx1"), tb: tb, wechat: new(fakeWeChat), fleet: &fleet{answer: answer}}
	r.report = s.fleet.report
	s.Base = s.wechat
	return s
}

// apply has the Reader show a new living token.
func (s *scene) apply(generation uint64) string {
	c := credential(generation, time.Hour)
	s.wechat.set(c.Value, true)
	s.reader.Apply(c)
	return c.Value
}

// get calls WeChat's API, with a body where it is not nil.
func (s *scene) get(ctx context.Context, body io.Reader) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, apiURL, body)
	if err != nil {
		return "", err
	}
	return s.do(req)
}

func (s *scene) do(req *http.Request) (string, error) {
	resp, err := s.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func refreshed(context.Context) (messages.Refreshed, error) {
	return messages.Refreshed{Refreshed: true, Reason: messages.ReasonRefreshed}, nil
}

func reason(r messages.Reason) func(context.Context) (messages.Refreshed, error) {
	return func(context.Context) (messages.Refreshed, error) { return messages.Refreshed{Reason: r}, nil }
}

func sleep(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // virtual time

// closing is a body that cannot be had again.
type closing struct {
	io.Reader
	closed  bool
	onClose func() // called the first time; nil: nobody
}

func (c *closing) Close() error {
	if !c.closed && c.onClose != nil {
		c.onClose()
	}
	c.closed = true
	return nil
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
