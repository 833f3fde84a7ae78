package demo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience limits waits for events that must come. It is for hangs only, not a claim about speed.
const patience = 2 * time.Minute

// anyPort lets the tests run beside anything else that uses the default port.
const anyPort = "127.0.0.1:0"

// screen is an output on which a test can wait for a text.
type screen struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{}
}

func newScreen() *screen { return &screen{wrote: make(chan struct{}, 1)} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.wrote <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await blocks until the screen shows what is asked for.
func (s *screen) await(t *testing.T, shows func(text string) bool) {
	t.Helper()
	deadline := time.After(patience)
	for !shows(s.String()) {
		select {
		case <-s.wrote:
		case <-deadline:
			t.Fatalf("after %s the screen shows only:\n%s", patience, s)
		}
	}
}

// start runs the demo. The function that it returns ends the demo as a user does, and returns the error of Run.
func start(t *testing.T, cfg Config) (end func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	end = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			return errors.New("the demo does not end")
		}
	})
	t.Cleanup(func() { _ = end() })
	return end
}

// hasLine reports whether a line of the story begins with these words.
func hasLine(text, words string) bool {
	return regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d  ` + regexp.QuoteMeta(words) + ` `).MatchString(text)
}

// checkNothingStays fails if the demo's data directory still exists.
func checkNothingStays(t *testing.T, text string) {
	t.Helper()
	m := regexp.MustCompile(`data in (.*) \(removed at the end\)`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("the data directory is not named:\n%s", text)
	}
	if _, err := os.Stat(m[1]); !os.IsNotExist(err) {
		t.Errorf("the data directory %s still exists: %v", m[1], err)
	}
}

// checkMasked fails if the screen shows a value. A value of the simulation has 86 or 136 characters, and no
// other word has more than 32 of these characters in a row.
func checkMasked(t *testing.T, text string) {
	t.Helper()
	if v := regexp.MustCompile(`[A-Za-z0-9_-]{33,}|97_[A-Za-z0-9_-]{4,}`).FindString(text); v != "" {
		t.Errorf("a value is shown: %s", v)
	}
}

// The test ends the demo when every step has happened, so that a busy machine only takes longer.
func TestEveryStepHappens(t *testing.T) {
	t.Parallel()
	out := newScreen()
	end := start(t, Config{Out: out, Life: 12 * time.Second, Listen: anyPort})
	steps := []string{
		wordPublished, wordResolved, wordKilled, wordConflict, wordHealed,
		wordRefreshed + "  " + messages.Key(stableID, messages.AccessToken),
		wordRefreshed + "  " + messages.Key(classicID, messages.AccessToken),
	}
	for _, k := range keys {
		steps = append(steps, wordPublished+"  "+k)
	}
	for _, step := range steps {
		out.await(t, func(text string) bool { return hasLine(text, step) })
	}
	if err := end(); err != nil {
		t.Errorf("Run: %v", err)
	}
	text := out.String()
	t.Log("\n" + text)
	for _, word := range []string{wordFailed, wordRefused, wordExpired, wordRemoved} {
		if hasLine(text, word) {
			t.Errorf("there is a line %q", word)
		}
	}
	if !hasLine(text, wordEnded) {
		t.Error("there is no summary")
	}
	if strings.Contains(text, "\x1b") {
		t.Error("there are colors, although Color is not set")
	}
	checkMasked(t, text)
	checkNothingStays(t, text)
}

func TestErrorNamesTheStepsThatDidNotHappen(t *testing.T) {
	t.Parallel()
	out := newScreen()
	cfg := Config{Out: out, For: 2 * minLife, Listen: anyPort}
	err := run(t.Context(), cfg, func(sim *wechattest.Simulator) {
		sim.Inject(wechattest.Fault{AppID: classicID, Endpoint: "token", Errcode: -1})
	})
	if err == nil {
		t.Fatalf("no error:\n%s", out)
	}
	for _, step := range []string{
		"published (wx-demo-classic.access_token)", "refreshed (a token from the interface token)", "resolved",
		"healed",
	} {
		if !strings.Contains(err.Error(), step) {
			t.Errorf("the error does not name %q: %v", step, err)
		}
	}
	text := out.String()
	if !strings.Contains(text, "The last lines of the log") {
		t.Errorf("the log is not shown:\n%s", text)
	}
	checkMasked(t, text)
	checkNothingStays(t, text)
}

// A step that has happened is not named.
func TestStepIsMissingUntilItHappens(t *testing.T) {
	t.Parallel()
	s := newStory(Config{}, newSimulator(minLife))
	for _, step := range []struct {
		want string // the first missing step
		do   func()
	}{
		{"published (wx-demo-stable.access_token)", func() { s.current[keys[0]] = messages.Credential{} }},
		{"published (wx-demo-stable.jsapi_ticket)", func() { s.current[keys[1]] = messages.Credential{} }},
		{"published (wx-demo-stable.wx_card_ticket)", func() { s.current[keys[2]] = messages.Credential{} }},
		{"published (wx-demo-classic.access_token)", func() { s.current[keys[3]] = messages.Credential{} }},
		{"refreshed (a token from the interface stable_token)", func() { s.refreshed[messages.SourceStableToken]++ }},
		{"refreshed (a token from the interface token)", func() { s.refreshed[messages.SourceToken]++ }},
		{"resolved (the code_ticket of the sample)", func() { s.resolves++ }},
		{"healed (a token that another system killed)", func() { s.heals = append(s.heals, time.Second) }},
	} {
		missing := s.missing()
		if len(missing) == 0 {
			t.Fatalf("nothing is missing, want %q", step.want)
		}
		if diff := cmp.Diff(step.want, missing[0]); diff != "" {
			t.Error(diff)
		}
		s.update(step.do)
	}
	if missing := s.missing(); len(missing) != 0 {
		t.Errorf("every step has happened, and %q are missing", missing)
	}
}

func TestUserEndsTheDemoAndNothingStays(t *testing.T) {
	t.Parallel()
	// The demo also starts if its port is taken.
	l, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out := newScreen()
	end := start(t, Config{Out: out, Listen: l.Addr().String(), Color: true})
	out.await(t, func(text string) bool { return strings.Contains(text, wordResolved) })
	attackControl(t, out.String())
	readPages(t, out.String())
	if err := end(); err != nil {
		t.Errorf("Run: %v", err)
	}
	text := out.String()
	for _, want := range []string{l.Addr().String() + " is taken", "upstream calls", "valid for 1m,", "\x1b["} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not shown:\n%s", want, text)
		}
	}
	checkNothingStays(t, text)
}

// readPages reads the pages of the worker, whose address the introduction shows.
func readPages(t *testing.T, introduction string) {
	t.Helper()
	page := regexp.MustCompile(`page +(http://[0-9.:]+)/ `).FindStringSubmatch(introduction)
	if page == nil {
		t.Fatalf("the introduction names no page:\n%s", introduction)
	}
	for path, want := range map[string]string{"/": classicID, "/metrics": "wxkeeper_credentials", "/readyz": "ok"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, page[1]+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Close = true
		resp, err := new(http.Transport).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(text), want) {
			t.Errorf("%s: %s, %v\n%s", path, resp.Status, err, text)
		}
	}
}

// attackControl attacks the control API, whose address the introduction shows, as a web site can.
func attackControl(t *testing.T, introduction string) {
	t.Helper()
	url := regexp.MustCompile(`http://[0-9.:]+/faults`).FindString(introduction)
	for name, header := range map[string]http.Header{
		"a form":                               {"Origin": {"https://evil.example"}},
		"a site that resolves to this machine": {"Host": {"evil.example"}, "Sec-Fetch-Site": {"same-origin"}},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"errcode":-1}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header, r.Host, r.Close = header, header.Get("Host"), true
		resp, err := new(http.Transport).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode < 400 {
			t.Errorf("%s changes the simulation: %s", name, resp.Status)
		}
	}
}

// closedPipe is an output that fails after the introduction.
type closedPipe struct{ *screen }

func (p closedPipe) Write(b []byte) (int, error) {
	if strings.Contains(p.String(), "What happens") {
		return 0, io.ErrClosedPipe
	}
	return p.screen.Write(b)
}

func TestDemoEndsWhenItsOutputIsClosed(t *testing.T) {
	t.Parallel()
	out := newScreen()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := Run(ctx, Config{Out: closedPipe{out}, Listen: anyPort}); err != nil {
		t.Errorf("Run: %v", err)
	}
	if ctx.Err() != nil {
		t.Errorf("the demo did not end within %s", patience)
	}
	checkNothingStays(t, out.String())
}

func TestDemoThatIsEndedBeforeItBeginsReturnsNoError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, Config{Out: newScreen(), Listen: anyPort}); err != nil {
		t.Error(err)
	}
}

func TestLifeFollowsFromTheDuration(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for _, tc := range []struct {
		given, life, want time.Duration
		err               string
	}{
		{want: 60 * s},
		{given: 20 * s, want: 6 * s},
		{given: 12 * s, want: 6 * s},
		{given: 62500 * time.Millisecond, want: 20 * s},
		{given: 120 * s, want: 60 * s},
		{life: 9 * s, want: 9 * s},
		{given: 11 * s, err: "at least 12s"},
		{given: 20 * s, life: 11 * s, err: "at least 22s"},
		{given: -s, err: "too short"},
		{life: 5 * s, err: "at least 6s"},
		{life: 6500 * time.Millisecond, err: "whole number of seconds"},
	} {
		cfg := Config{Out: newScreen(), For: tc.given, Life: tc.life}
		err := cfg.setDefaults()
		if tc.err == "" {
			if err != nil {
				t.Errorf("For %s, Life %s: %v", tc.given, tc.life, err)
			}
			if cfg.Life != tc.want {
				t.Errorf("For %s, Life %s: the life is %s, want %s", tc.given, tc.life, cfg.Life, tc.want)
			}
			continue
		}
		if !errors.Is(err, ErrConfig) {
			t.Errorf("For %s, Life %s: the error is %v, want %v", tc.given, tc.life, err, ErrConfig)
		} else if !strings.Contains(err.Error(), tc.err) {
			t.Errorf("For %s, Life %s: the error is %v, want %q", tc.given, tc.life, err, tc.err)
		}
	}
}
