package kv

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
	reported []messages.RefreshCredential
	answer   func(context.Context) (messages.Refreshed, error)
}

func (f *fleet) report(ctx context.Context, r messages.RefreshCredential) (messages.Refreshed, error) {
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

func reason(r string) func(context.Context) (messages.Refreshed, error) {
	return func(context.Context) (messages.Refreshed, error) { return messages.Refreshed{Reason: r}, nil }
}

func sleep(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // virtual time

func TestTransportAddsTheTokenToCallsOfWeChatsAPIOnly(t *testing.T) {
	t.Parallel()
	s := newScene(t, refreshed)
	token := s.apply(1)
	s.Hosts = nil
	for url, want := range map[string]string{
		apiURL:                                   apiURL + "?access_token=" + token,
		apiURL + "?a=b&c=%20":                    apiURL + "?a=b&c=%20&access_token=" + token,
		"https://API.weixin.QQ.com:443/x":        "https://API.weixin.QQ.com:443/x?access_token=" + token,
		"https://api2.weixin.qq.com/x":           "https://api2.weixin.qq.com/x?access_token=" + token,
		"https://sh.api.weixin.qq.com/x":         "https://sh.api.weixin.qq.com/x?access_token=" + token,
		"https://sz.api.weixin.qq.com/x":         "https://sz.api.weixin.qq.com/x?access_token=" + token,
		"https://hk.api.weixin.qq.com/x":         "https://hk.api.weixin.qq.com/x?access_token=" + token,
		"https://api.weixin.qq.com":              "https://api.weixin.qq.com?access_token=" + token,
		"https://api.weixin.qq.com/x#f":          "https://api.weixin.qq.com/x?access_token=" + token + "#f",
		"https://api.weixin.qq.com/snsx":         "https://api.weixin.qq.com/snsx?access_token=" + token,
		"https://api.weixin.qq.com/x?to=a_token": "https://api.weixin.qq.com/x?to=a_token&access_token=" + token,

		// All else passes as it is, and is the caller's own request.
		"https://api.weixin.qq.com:8443/x":             "",
		"https://api.weixin.qq.com.example.com/x":      "",
		"https://example.com/api.weixin.qq.com":        "",
		"https://user:api.weixin.qq.com@example.com/x": "",
		"https://mp.weixin.qq.com/x":                   "",
		"https://weixin.qq.com/x":                      "",
		"ftp://api.weixin.qq.com/x":                    "",
		"http://example.com/x":                         "",
		apiURL + "?access_token=mine":                  "",
		apiURL + "?a=b&access_token=":                  "",
		apiURL + "?access%5Ftoken=mine":                "",
		"https://api.weixin.qq.com/sns/userinfo?a=b":   "",
		"https://api.weixin.qq.com//sns/userinfo":      "",
	} {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "api.weixin.qq.com" // the header says nothing of where a request goes
		if _, err := s.do(req); err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		calls := s.wechat.called()
		got := calls[len(calls)-1].req
		switch {
		case want == "" && got != req:
			t.Errorf("%s was not left alone", url)
		case want != "" && got.URL.String() != want:
			t.Errorf("%s was sent as %s, want %s", url, got.URL, want)
		case req.URL.String() != url:
			t.Errorf("the caller's request was changed to %s", req.URL)
		}
	}
}

func TestTransportEscapesTheToken(t *testing.T) {
	t.Parallel()
	s := newScene(t, refreshed)
	c := credential(1, time.Hour)
	c.Value = "a&b=c+d%/?#"
	s.wechat.set(c.Value, true)
	s.reader.Apply(c)
	if got, err := s.get(context.Background(), nil); err != nil || got != `{"echo":""}` {
		t.Errorf("%s, %v", got, err)
	}
}

func TestTransportRefusesToSendATokenInTheClear(t *testing.T) {
	t.Parallel()
	s := newScene(t, refreshed)
	s.apply(1)
	s.Hosts = []string{"api.weixin.qq.com", "127.0.0.1", "[::1]:8080", "LOCALHOST:80", "10.0.0.1:8080"}
	for url, refused := range map[string]bool{
		"http://api.weixin.qq.com/x": true, "http://api.weixin.qq.com:80/x": true, "http://10.0.0.1:8080/x": true,
		"http://127.0.0.1/x": false, "http://[::1]:8080/x": false, "http://localhost/x": false, "https://api.weixin.qq.com/x": false,
	} {
		before := len(s.wechat.called())
		body := &closing{Reader: strings.NewReader("x")}
		req, err := http.NewRequest(http.MethodPost, url, body)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.do(req)
		if sent := len(s.wechat.called()) > before; sent == refused || (err != nil) != refused {
			t.Errorf("%s: sent %v, %v", url, sent, err)
		}
		if !body.closed {
			t.Errorf("%s: the body was not closed", url)
		}
	}
}

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

func TestTransportRefusesToFetchTokens(t *testing.T) {
	t.Parallel()
	s := newScene(t, refreshed)
	s.apply(1)
	for _, path := range []string{"/cgi-bin/token?grant_type=client_credential", "/cgi-bin/stable_token", "//cgi-bin//token", "/cgi-bin/token/"} {
		req, err := http.NewRequest(http.MethodGet, "https://api.weixin.qq.com"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.do(req); err == nil || !strings.Contains(err.Error(), "ask the Reader") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if n := len(s.wechat.called()); n != 0 {
		t.Errorf("%d calls were sent", n)
	}
}

func TestTransportReportsADeadTokenOnceHoweverManyMeetIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s *scene
		s = newScene(t, func(context.Context) (messages.Refreshed, error) {
			sleep(100 * time.Millisecond)
			s.apply(2)
			return messages.Refreshed{Refreshed: true, Reason: messages.ReasonRefreshed}, nil
		})
		dead := s.apply(1)
		s.wechat.kill(dead)
		second := s.reader.Transport("wx1")
		second.Base = s.wechat
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				one := *s
				if i%2 == 1 {
					one.Transport = second
				}
				sleep(time.Duration(i) * 200 * time.Microsecond) // half of them after the refresh
				body := fmt.Sprint("body ", i)
				if got, err := one.get(t.Context(), strings.NewReader(body)); err != nil || got != `{"echo":"`+body+`"}` {
					t.Errorf("%s, %v", got, err)
				}
			})
		}
		wg.Wait()
		sum := sha256.Sum256([]byte(dead))
		want := messages.RefreshCredential{AppID: "wx1", Kind: "access_token", ValueSHA256: hex.EncodeToString(sum[:])}
		if n := s.fleet.reports(); n != 1 || s.fleet.reported[0] != want {
			t.Errorf("%d reports: %+v", n, s.fleet.reported)
		}
		if n := s.wechat.open.Load(); n != 0 {
			t.Errorf("%d answers were left open", n)
		}
	})
}

func TestTransportRepeatsOnceAndReturnsTheSecondAnswerWhateverItIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s *scene
		s = newScene(t, func(ctx context.Context) (messages.Refreshed, error) {
			s.wechat.kill(s.apply(2))
			return refreshed(ctx)
		})
		s.wechat.kill(s.apply(1))
		if got, err := s.get(t.Context(), nil); err != nil || got != deadAnswer {
			t.Errorf("%s, %v", got, err)
		}
		if n := len(s.wechat.called()); n != 2 {
			t.Errorf("%d calls, want 2", n)
		}
	})
}

func TestTransportDoesNotReportATokenThatIsNotCurrentAnyMore(t *testing.T) {
	t.Parallel()
	s := newScene(t, refreshed)
	dead := s.apply(1)
	s.wechat.kill(dead)
	s.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
		resp, err := s.wechat.RoundTrip(req)
		s.apply(2) // while the answer is on its way
		return resp, err
	})
	if got, err := s.get(context.Background(), strings.NewReader("x")); err != nil || got != `{"echo":"x"}` {
		t.Errorf("%s, %v", got, err)
	}
	if n := s.fleet.reports(); n != 0 {
		t.Errorf("%d reports", n)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestTransportReportsButDoesNotRepeatWhatCannotBeSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var s *scene
		s = newScene(t, func(ctx context.Context) (messages.Refreshed, error) {
			<-release
			s.apply(2)
			return refreshed(ctx)
		})
		s.wechat.kill(s.apply(1))
		began := time.Now()
		if got, err := s.get(t.Context(), &closing{Reader: strings.NewReader("x")}); err != nil || got != deadAnswer {
			t.Errorf("%s, %v", got, err)
		}
		if waited := time.Since(began); waited != 0 || len(s.wechat.called()) != 1 {
			t.Errorf("%d calls, in %s; want one, at once", len(s.wechat.called()), waited)
		}
		close(release)
		synctest.Wait()
		if got, err := s.get(t.Context(), &closing{Reader: strings.NewReader("x")}); err != nil || got != `{"echo":"x"}` || s.fleet.reports() != 1 {
			t.Errorf("the next call: %s, %v, %d reports", got, err, s.fleet.reports())
		}
	})
}

func TestTransportReturnsWeChatsAnswerWhereTheBodyCannotBeHadAgain(t *testing.T) {
	t.Parallel()
	s := newScene(t, refreshed)
	s.wechat.kill(s.apply(1))
	req, err := http.NewRequest(http.MethodPost, apiURL, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("gone") }
	s.fleet.answer = func(ctx context.Context) (messages.Refreshed, error) { s.apply(2); return refreshed(ctx) }
	if got, err := s.do(req); err != nil || got != deadAnswer {
		t.Errorf("%s, %v", got, err)
	}
}

func TestTransportReturnsWeChatsAnswerAtOnceWhereTheFleetCannotHelp(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(context.Context) (messages.Refreshed, error){
		"alive":     reason(messages.ReasonAlive),
		"unchanged": reason(messages.ReasonUnchanged),
		"throttled": func(context.Context) (messages.Refreshed, error) {
			return messages.Refreshed{}, messages.Errorf(messages.Throttled, "too often").After(30 * time.Second)
		},
		"no responders": func(context.Context) (messages.Refreshed, error) { return messages.Refreshed{}, nats.ErrNoResponders },
		"a panic":       func(context.Context) (messages.Refreshed, error) { panic("a bug") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, answer)
				s.wechat.kill(s.apply(1))
				began := time.Now()
				for range 100 {
					if got, err := s.get(t.Context(), nil); err != nil || got != deadAnswer {
						t.Fatalf("%s, %v", got, err)
					}
				}
				if waited := time.Since(began); waited != 0 {
					t.Errorf("it waited %s", waited)
				}
				if calls, reports := len(s.wechat.called()), s.fleet.reports(); calls != 100 || reports != 1 {
					t.Errorf("%d calls and %d reports, want 100 and 1", calls, reports)
				}
			})
		})
	}
}

func TestTransportRemembersTheOutcomeOfAReportForAsLongAsItStands(t *testing.T) {
	t.Parallel()
	after := func(d time.Duration) func(context.Context) (messages.Refreshed, error) {
		return func(context.Context) (messages.Refreshed, error) {
			return messages.Refreshed{}, messages.Errorf(messages.Throttled, "too often").After(d)
		}
	}
	for name, c := range map[string]struct {
		answer func(context.Context) (messages.Refreshed, error)
		stands time.Duration
	}{
		"alive":       {reason(messages.ReasonAlive), 10 * time.Second},
		"throttled":   {after(30 * time.Second), 30 * time.Second},
		"for hours":   {after(5 * time.Hour), time.Minute},
		"for no time": {after(1), time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, c.answer)
				s.wechat.kill(s.apply(1))
				for i, at := range []time.Duration{0, c.stands - 1, 2} {
					sleep(at)
					if _, err := s.get(t.Context(), nil); err != nil {
						t.Fatal(err)
					}
					if n, want := s.fleet.reports(), 1+i/2; n != want {
						t.Errorf("%d reports after %d requests, want %d", n, i+1, want)
					}
				}
			})
		})
	}
}

func TestTransportGoesOnAsSoonAsTheReaderShowsAnotherToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, func(ctx context.Context) (messages.Refreshed, error) {
			<-ctx.Done() // no worker answers
			return messages.Refreshed{}, ctx.Err()
		})
		s.wechat.kill(s.apply(1))
		began := time.Now()
		time.AfterFunc(time.Second, func() { s.apply(2) })
		if got, err := s.get(t.Context(), nil); err != nil || got != `{"echo":""}` {
			t.Errorf("%s, %v", got, err)
		}
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("it waited %s", waited)
		}
	})
}

// A bucket made anew may begin with lower generations.
func TestTransportWaitsForAnotherValueNotForAHigherGeneration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, refreshed)
		dead := credential(9, 2*time.Second)
		s.reader.Apply(dead)
		time.AfterFunc(time.Second, func() { s.reader.Apply(dead) }) // a change that brings nothing new
		time.AfterFunc(3*time.Second, func() { s.apply(1) })
		if got, err := s.get(t.Context(), nil); err != nil || got != `{"echo":""}` {
			t.Errorf("%s, %v", got, err)
		}
	})
}

func TestTransportStaysWithinTheDeadlineAndThenReturnsWeChatsAnswer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ deadline, patience, want time.Duration }{
		"a short deadline":          {time.Second, 0, 900 * time.Millisecond},
		"a long deadline":           {9 * time.Second, time.Second, 8100 * time.Millisecond},
		"no deadline":               {0, 0, 5 * time.Second},
		"no deadline, but patience": {0, 2 * time.Second, 2 * time.Second},
		"longer than a report":      {time.Minute, 0, messages.DefaultTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, refreshed) // but the Reader does not hear of it
				s.wechat.kill(s.apply(1))
				s.Patience = c.patience
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if c.deadline > 0 {
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
				}
				defer cancel()
				began := time.Now()
				got, err := s.get(ctx, nil)
				if waited := time.Since(began); err != nil || got != deadAnswer || waited != c.want {
					t.Errorf("%s, %v after %s; want WeChat's answer after %s", got, err, waited, c.want)
				}
				sleep(messages.DefaultTimeout) // the report ends too, or the bubble says what is left
			})
		})
	}
}

func TestTransportLeavesAnHTTPClientTheTimeForWeChatsAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, refreshed) // but the Reader does not hear of it
		s.wechat.kill(s.apply(1))
		client := &http.Client{Transport: s.Transport, Timeout: 20 * time.Second / 9}
		began := time.Now()
		resp, err := client.Get(apiURL)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != deadAnswer || time.Since(began).Round(time.Millisecond) != 2*time.Second {
			t.Errorf("%s, %v after %s", b, err, time.Since(began))
		}
		sleep(messages.DefaultTimeout) // the report ends too
	})
}

func TestTransportsCallerWhoGoesAwayHarmsNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s *scene
		s = newScene(t, func(ctx context.Context) (messages.Refreshed, error) {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return messages.Refreshed{}, ctx.Err()
			}
			s.apply(2)
			return refreshed(ctx)
		})
		s.wechat.kill(s.apply(1))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			began := time.Now()
			_, _ = s.get(ctx, nil) // the first to meet it, so it makes the report
			if waited := time.Since(began); waited != 500*time.Millisecond {
				t.Errorf("the one that went away waited %s", waited)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if got, err := s.get(t.Context(), nil); err != nil || got != `{"echo":""}` {
				t.Errorf("%s, %v", got, err)
			}
		})
		sleep(500 * time.Millisecond)
		cancel()
		wg.Wait()
		if n := s.fleet.reports(); n != 1 {
			t.Errorf("%d reports", n)
		}
	})
}

func TestTransportWaitsForTheFirstToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, refreshed)
		time.AfterFunc(4*time.Second, func() { s.apply(1) })
		if got, err := s.get(t.Context(), strings.NewReader("x")); err != nil || got != `{"echo":"x"}` {
			t.Errorf("%s, %v", got, err)
		}
	})
}

func TestTransportSaysThatThereIsNoToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, refreshed)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		body := &closing{Reader: strings.NewReader("x")}
		if _, err := s.get(ctx, body); !errors.Is(err, ErrNotFound) || errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 900*time.Millisecond {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		if !body.closed {
			t.Error("the body was not closed")
		}
		s.reader.Apply(credential(1, time.Second))
		sleep(time.Second)
		began = time.Now()
		if _, err := s.get(t.Context(), nil); !errors.Is(err, ErrExpired) || time.Since(began) != 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.get(gone, nil); !errors.Is(err, ErrExpired) || !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want ErrExpired and Canceled", err)
		}
		if n := len(s.wechat.called()); n != 0 {
			t.Errorf("%d calls were sent without a token", n)
		}
	})
}
