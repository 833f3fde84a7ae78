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

// clock is a clock that only Advance moves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

// newClock starts at noon in Shanghai, so that no test passes midnight by accident.
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

// fixture is a simulation with one account. Its methods call the simulation without a network.
type fixture struct {
	*Simulator
	clock *clock
	t     testing.TB
}

func newFixture(t testing.TB, change ...func(*Config)) *fixture {
	t.Helper()
	c := newClock()
	cfg := Config{Accounts: []Account{{app, secret}}, Now: c.Now}
	for _, f := range change {
		f(&cfg)
	}
	return &fixture{New(cfg), c, t}
}

// response is an answer with the fields of all endpoints.
type response struct {
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

func (fx *fixture) do(method, target, body string) response {
	fx.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	return record(fx, httptest.NewRequest(method, target, r))
}

func (fx *fixture) classic() response { fx.t.Helper(); return fx.classicOf(app, secret) }

func (fx *fixture) classicOf(appid, secret string) response {
	fx.t.Helper()
	return fx.do("GET", "/cgi-bin/token?grant_type=client_credential&appid="+appid+"&secret="+secret, "")
}

func (fx *fixture) stable(force bool) response {
	fx.t.Helper()
	body := `{"grant_type":"client_credential","appid":"` + app + `","secret":"` + secret + `"`
	if force {
		body += `,"force_refresh":true`
	}
	return fx.do("POST", "/cgi-bin/stable_token", body+"}")
}

func (fx *fixture) ticket(token, typ string) response {
	fx.t.Helper()
	return fx.do("GET", "/cgi-bin/ticket/getticket?access_token="+token+"&type="+typ, "")
}

func (fx *fixture) code(token, openid, ticket string) response {
	fx.t.Helper()
	body, _ := json.Marshal(map[string]string{"openid": openid, "code_ticket": ticket})
	return fx.do("POST", "/intp/marketcode/tickettocode?access_token="+token, string(body))
}

func (fx *fixture) domainIP(token string) response {
	fx.t.Helper()
	return fx.do("GET", "/cgi-bin/get_api_domain_ip?access_token="+token, "")
}

// checkValidity fails the test unless the token has this validity, and an endpoint answers accordingly.
func (fx *fixture) checkValidity(token string, want Validity) {
	fx.t.Helper()
	if got := fx.Validity(app, KindAccessToken, token); got != want {
		fx.t.Errorf("Validity = %s, want %s", got, want)
	}
	errcode := map[Validity]int{Valid: 0, Dead: 40001, Expired: 42001, Unknown: 40014}[want]
	if got := fx.domainIP(token); got.Errcode != errcode {
		fx.t.Errorf("get_api_domain_ip answers %s, want errcode %d", got.body, errcode)
	}
}

func (fx *fixture) refused(got response, errcode int, text string) {
	fx.t.Helper()
	if got.status != http.StatusOK || got.Errcode != errcode || !strings.Contains(got.Errmsg, text) {
		fx.t.Errorf("got HTTP %d %s, want 200, errcode %d with %q", got.status, got.body, errcode, text)
	}
	if !ridAtEnd.MatchString(got.Errmsg) {
		fx.t.Errorf("errmsg %q does not end in a rid", got.Errmsg)
	}
}

func (fx *fixture) ok(got response) response {
	fx.t.Helper()
	if got.Errcode != 0 || got.status != http.StatusOK {
		fx.t.Fatalf("refused: HTTP %d %s", got.status, got.body)
	}
	return got
}

func (fx *fixture) equal(what string, got, want any) {
	fx.t.Helper()
	if got != want {
		fx.t.Errorf("%s = %v, want %v", what, got, want)
	}
}

func record(fx *fixture, r *http.Request) response {
	rec := httptest.NewRecorder()
	fx.ServeHTTP(rec, r)
	out := response{body: rec.Body.String(), status: rec.Code, header: rec.Header()}
	_ = json.Unmarshal(rec.Body.Bytes(), &out)
	return out
}

// eventually waits until another goroutine has made done true.
func eventually(t testing.TB, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatal("the condition did not become true within a minute")
		}
		runtime.Gosched()
	}
}
