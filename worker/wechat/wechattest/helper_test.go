package wechattest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock stands still until it is moved.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

// newClock starts at noon in Shanghai, so that no test crosses a day by accident.
func newClock() *clock { return &clock{t: time.Date(2026, 3, 2, 4, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

const (
	app    = "wx0123456789abcdef"
	secret = "s3cret"
)

// house is a simulation with one account, asked without a network.
type house struct {
	*Simulator
	clock *clock
	t     testing.TB
}

func newHouse(t testing.TB, change ...func(*Config)) *house {
	t.Helper()
	c := newClock()
	cfg := Config{Accounts: []Account{{app, secret}}, Now: c.Now}
	for _, f := range change {
		f(&cfg)
	}
	return &house{New(cfg), c, t}
}

// said is an answer: every field of every endpoint.
type said struct {
	Errcode     int    `json:"errcode"`
	Errmsg      string `json:"errmsg"`
	AccessToken string `json:"access_token"`
	Ticket      string `json:"ticket"`
	ExpiresIn   int    `json:"expires_in"`
	Code        string `json:"code"`

	body   string
	status int
	header http.Header
}

func (h *house) do(method, target, body string) said {
	h.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	return record(h, httptest.NewRequest(method, target, r))
}

func (h *house) classic() said { h.t.Helper(); return h.classicOf(app, secret) }

func (h *house) classicOf(appid, secret string) said {
	h.t.Helper()
	return h.do("GET", "/cgi-bin/token?grant_type=client_credential&appid="+appid+"&secret="+secret, "")
}

func (h *house) stable(force bool) said {
	h.t.Helper()
	body := `{"grant_type":"client_credential","appid":"` + app + `","secret":"` + secret + `"`
	if force {
		body += `,"force_refresh":true`
	}
	return h.do("POST", "/cgi-bin/stable_token", body+"}")
}

func (h *house) ticket(token, typ string) said {
	h.t.Helper()
	return h.do("GET", "/cgi-bin/ticket/getticket?access_token="+token+"&type="+typ, "")
}

func (h *house) code(token, openid, ticket string) said {
	h.t.Helper()
	body, _ := json.Marshal(map[string]string{"openid": openid, "code_ticket": ticket})
	return h.do("POST", "/intp/marketcode/tickettocode?access_token="+token, string(body))
}

func (h *house) domainIP(token string) said {
	h.t.Helper()
	return h.do("GET", "/cgi-bin/get_api_domain_ip?access_token="+token, "")
}

// judge fails the test unless the token is what is wanted, and unless an API
// endpoint says the same.
func (h *house) judge(token string, want Verdict) {
	h.t.Helper()
	if got := h.Judge(app, KindAccessToken, token); got != want {
		h.t.Errorf("Judge = %s, want %s", got, want)
	}
	errcode := map[Verdict]int{Valid: 0, Dead: 40001, Expired: 42001, Unknown: 40014}[want]
	if got := h.domainIP(token); got.Errcode != errcode {
		h.t.Errorf("get_api_domain_ip says %s, want errcode %d", got.body, errcode)
	}
}

func (h *house) refused(got said, errcode int, text string) {
	h.t.Helper()
	if got.status != http.StatusOK || got.Errcode != errcode || !strings.Contains(got.Errmsg, text) {
		h.t.Errorf("got HTTP %d %s, want 200, errcode %d with %q", got.status, got.body, errcode, text)
	}
	if !ridAtEnd.MatchString(got.Errmsg) {
		h.t.Errorf("errmsg %q does not end in a rid", got.Errmsg)
	}
}

func (h *house) ok(got said) said {
	h.t.Helper()
	if got.Errcode != 0 || got.status != http.StatusOK {
		h.t.Fatalf("refused: HTTP %d %s", got.status, got.body)
	}
	return got
}

func (h *house) equal(what string, got, want any) {
	h.t.Helper()
	if got != want {
		h.t.Errorf("%s = %v, want %v", what, got, want)
	}
}

func record(h *house, r *http.Request) said {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	out := said{body: rec.Body.String(), status: rec.Code, header: rec.Header()}
	_ = json.Unmarshal(rec.Body.Bytes(), &out)
	return out
}

// eventually waits for what another goroutine is about to do.
func eventually(t testing.TB, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen within 10 s")
		}
		runtime.Gosched()
	}
}
