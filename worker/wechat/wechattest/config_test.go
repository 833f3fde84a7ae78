package wechattest

import (
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestValidateNamesTheField(t *testing.T) {
	t.Parallel()
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("zero value: %v", err)
	}
	for field, cfg := range map[string]Config{
		"Accounts[0]": {Accounts: []Account{{AppID: "wx1"}}},
		"Accounts[1]": {Accounts: []Account{{"wx1", "s"}, {"wx1", "s"}}},
		"TokenLife":   {TokenLife: 1500 * time.Millisecond},
		"TicketLife":  {TicketLife: -time.Second},
		"Overlap":     {TokenLife: 10 * time.Second, Overlap: 6 * time.Second},
		"Latency":     {Latency: -1},
		"AllowIPs":    {AllowIPs: []string{"172.0.0.*"}},
	} {
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), field+":") {
			t.Errorf("%s: %v", field, err)
		}
		panics(t, field, func() { New(cfg) })
	}
}

func TestInvalidArgumentsPanic(t *testing.T) {
	t.Parallel()
	s := New(Config{Accounts: []Account{{app, secret}}})
	panics(t, "AddAccount", func() { s.AddAccount(Account{AppID: "wx1"}) })
	panics(t, "SetSecret, unknown account", func() { s.SetSecret("wx1", "s") })
	panics(t, "SetSecret, empty", func() { s.SetSecret(app, "") })
	for _, f := range []Fault{
		{},
		{After: true},
		{Endpoint: "tokens", Errcode: -1},
		{Body: "nonsense"},
		{Times: -1, Errcode: -1},
		{Status: 99},
		{Delay: -1},
		{Errmsg: "x"},
		{Hang: true, Drop: true},
	} {
		panics(t, "Inject", func() { s.Inject(f) })
	}
}

// The Date of an answer is the simulation's time, so that a client that compares clocks can be tested.
func TestDateHeaderIsTheTimeOfTheSimulation(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := New(Config{Now: func() time.Time { return now }})
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/cgi-bin/token", nil))
	if got, err := http.ParseTime(rec.Header().Get("Date")); err != nil || !got.Equal(now) {
		t.Errorf("%v, %v", got, err)
	}
}

func panics(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", what)
		}
	}()
	f()
}

func TestOnlyTheStandardLibraryIsImported(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") {
				t.Errorf("%s imports %s", e.Name(), path)
			}
		}
	}
}

// The simulation shows AppIDs in its counters.
func TestAppSecretIsNoAppID(t *testing.T) {
	t.Parallel()
	const secret = "0123456789abcdeffedcba9876543210"
	accounts := []Account{{AppID: secret, Secret: "wx1"}}
	err := Config{Accounts: accounts}.Validate()
	if err == nil || !strings.Contains(err.Error(), "looks like an AppSecret") || strings.Contains(err.Error(), secret) {
		t.Errorf("%v", err)
	}
	fx := newFixture(t)
	status, got := ask(fx.Control(), "POST", "/accounts", `{"appid":"`+secret+`","secret":"s"}`)
	if status != http.StatusBadRequest || strings.Contains(got, secret) {
		t.Errorf("%d %s", status, got)
	}
	fx.refused(fx.classicOf(secret, "s"), 40013, "")
	if _, got := ask(fx.Control(), "GET", "/calls", ""); strings.Contains(got, secret) {
		t.Errorf("the counters show the AppSecret: %s", got)
	}
}
