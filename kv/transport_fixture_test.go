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

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

const apiURL = "https://api.weixin.qq.com/cgi-bin/get_api_domain_ip"

// call is a request that arrived at a fakeWeChat.
type call struct {
	req  *http.Request
	body string
}

// fakeWeChat is a base transport that answers as WeChat does, and knows which tokens are alive.
type fakeWeChat struct {
	mu    sync.Mutex
	alive map[string]bool
	calls []call
	open  atomic.Int64 // answers whose body was not closed
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
	if f.alive[req.URL.Query().Get("access_token")] {
		answer = echo(string(body))
	}
	f.open.Add(1)
	resp := answered(req, answer)
	resp.Body = &onlyOnce{Reader: resp.Body, onClose: func() { f.open.Add(-1) }}
	return resp, nil
}

// echo is the answer to a request with a living token.
func echo(body string) string { return `{"echo":"` + body + `"}` }

// answered is an answer with a body.
func answered(req *http.Request, body string) *http.Response {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: int64(len(body)), Request: req,
		Body: io.NopCloser(strings.NewReader(body)),
	}
}

func (f *fakeWeChat) kill(token string) { f.set(token, false) }

func (f *fakeWeChat) set(token string, alive bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.alive == nil {
		f.alive = make(map[string]bool)
	}
	f.alive[token] = alive
}

func (f *fakeWeChat) called() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// answerFunc answers a report.
type answerFunc func(context.Context) (messages.Refreshed, error)

// fleet answers the reports of a Reader in place of the workers. It is the source of the Reader, and emits
// nothing.
type fleet struct {
	mu       sync.Mutex
	reported []messages.RefreshCredentialRequest
	answer   answerFunc
}

func (f *fleet) Run(ctx context.Context, _ func(bucket.Event)) { <-ctx.Done() }

func (f *fleet) Report(ctx context.Context, req messages.RefreshCredentialRequest) (messages.Refreshed, error) {
	f.mu.Lock()
	f.reported = append(f.reported, req)
	f.mu.Unlock()
	return f.answer(ctx)
}

func (f *fleet) reports() []messages.RefreshCredentialRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reported
}

// transportFixture is a Transport between a fake WeChat and a fake fleet. It needs no network, so it works in a
// bubble of virtual time.
type transportFixture struct {
	*Transport
	tb     testing.TB
	wechat *fakeWeChat
	fleet  *fleet
}

func newTransportFixture(tb testing.TB, answer answerFunc) *transportFixture {
	tb.Helper()
	f := &transportFixture{tb: tb, wechat: new(fakeWeChat), fleet: &fleet{answer: answer}}
	r, err := NewReader(nil, ReaderConfig{Source: f.fleet})
	if err != nil {
		tb.Fatal(err)
	}
	f.Transport = r.Transport("wx1")
	f.Base = f.wechat
	return f
}

// publish has the Reader hold another token, which is alive, and returns the token.
func (f *transportFixture) publish(generation uint64) string {
	f.tb.Helper()
	c := credential(generation, time.Hour)
	f.wechat.set(c.Value, true)
	put(f.tb, f.reader, c)
	return c.Value
}

// publishDead has the Reader hold another token, which is dead, and returns the token.
func (f *transportFixture) publishDead(generation uint64) string {
	f.tb.Helper()
	token := f.publish(generation)
	f.wechat.kill(token)
	return token
}

// post calls WeChat's API, with a body if it is not nil.
func (f *transportFixture) post(ctx context.Context, body io.Reader) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, apiURL, body)
	if err != nil {
		return "", err
	}
	return f.do(req)
}

func (f *transportFixture) do(req *http.Request) (string, error) {
	resp, err := f.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// expect calls WeChat's API and checks the answer.
func (f *transportFixture) expect(ctx context.Context, body io.Reader, want string) {
	f.tb.Helper()
	got, err := f.post(ctx, body)
	f.check(got, err, want)
}

// check checks an answer.
func (f *transportFixture) check(got string, err error, want string) {
	f.tb.Helper()
	if err != nil {
		f.tb.Errorf("the request fails with %v", err)
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		f.tb.Errorf("the answer: %s", diff)
	}
}

// checkCounts checks how many calls arrived at WeChat, and how many reports at the fleet.
func (f *transportFixture) checkCounts(wantCalls, wantReports int) {
	f.tb.Helper()
	if n := len(f.wechat.called()); n != wantCalls {
		f.tb.Errorf("%d calls of WeChat, want %d", n, wantCalls)
	}
	f.checkReports(wantReports)
}

// checkReports checks how many reports arrived at the fleet.
func (f *transportFixture) checkReports(want int) {
	f.tb.Helper()
	if n := len(f.fleet.reports()); n != want {
		f.tb.Errorf("%d reports, want %d", n, want)
	}
}

// checkWaited checks how long something took, in virtual time.
func checkWaited(tb testing.TB, began time.Time, want time.Duration) {
	tb.Helper()
	if waited := time.Since(began); waited != want {
		tb.Errorf("the request waited for %s, want %s", waited, want)
	}
}

// refreshed is the fleet's answer if it has refreshed the token.
func refreshed(context.Context) (messages.Refreshed, error) {
	return messages.Refreshed{Refreshed: true, Reason: messages.ReasonRefreshed}, nil
}

// replies answers each report in the same way.
func replies(reply messages.Refreshed, err error) answerFunc {
	return func(context.Context) (messages.Refreshed, error) { return reply, err }
}

// onlyOnce is a body that cannot be sent again.
type onlyOnce struct {
	io.Reader
	closed  bool
	onClose func() // called by the first Close; nil: it is not called
}

func (o *onlyOnce) Close() error {
	if !o.closed && o.onClose != nil {
		o.onClose()
	}
	o.closed = true
	return nil
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
