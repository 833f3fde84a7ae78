package demo

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits for events that must come; it is not a claim about speed.
const patience = 20 * time.Second

// anyPort keeps the tests away from what else runs on the machine.
const anyPort = "127.0.0.1:0"

// screen is a terminal that can be waited for.
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

// await blocks until the screen shows what.
func (s *screen) await(t *testing.T, what string) {
	t.Helper()
	deadline := time.After(patience)
	for !strings.Contains(s.String(), what) {
		select {
		case <-s.wrote:
		case <-deadline:
			t.Fatalf("the screen never showed %q:\n%s", what, s)
		}
	}
}

// said tells whether a line of the story begins with the word.
func said(text, word string) bool {
	return regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d  ` + word + ` `).MatchString(text)
}

// checkNothingStays fails where the demo's data directory is still there.
func checkNothingStays(t *testing.T, text string) {
	t.Helper()
	m := regexp.MustCompile(`data in (.*) \(removed at the end\)`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("the data directory is not named:\n%s", text)
	}
	if _, err := os.Stat(m[1]); !os.IsNotExist(err) {
		t.Errorf("the data directory %s is still there: %v", m[1], err)
	}
}

// checkMasked fails where a value stands on the screen: in the simulation those are 86 and 136 characters long, and no
// other word has more than 32 of these characters in a row.
func checkMasked(t *testing.T, text string) {
	t.Helper()
	if v := regexp.MustCompile(`[A-Za-z0-9_-]{33,}|97_[A-Za-z0-9_-]{4,}`).FindString(text); v != "" {
		t.Errorf("a value is shown: %s", v)
	}
}

func TestTheWholeStoryHappensInTime(t *testing.T) {
	t.Parallel()
	out := newScreen()
	began := time.Now()
	if err := Run(t.Context(), Config{Out: out, For: 20 * time.Second, Life: 6 * time.Second, Listen: anyPort}); err != nil {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("it took %s", took)
	}
	text := out.String()
	t.Log("\n" + text)
	for _, word := range []string{wordPublished, wordRenewed, wordResolved, wordKilled, wordConflict, wordHealed, wordEnded} {
		if !said(text, word) {
			t.Errorf("nothing was %s", word)
		}
	}
	for _, word := range []string{wordFailed, wordRefused, wordExpired, wordGone} {
		if said(text, word) {
			t.Errorf("something was %s", word)
		}
	}
	for _, k := range keys {
		if !strings.Contains(text, "published  "+k+" ") {
			t.Errorf("%s was not published", k)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Error("colors nobody asked for")
	}
	checkMasked(t, text)
	checkNothingStays(t, text)
}

func TestAChapterThatDoesNotHappenIsNamed(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fault          wechattest.Fault
		named, unnamed []string
	}{
		"no classic token": {
			fault: wechattest.Fault{AppID: classicID, Endpoint: "token", Errcode: -1},
			named: []string{
				"published (wx-demo-classic.access_token)", "renewed (a token of token)", "resolved", "healed",
			},
			unnamed: []string{"published (wx-demo-stable", "renewed (a token of stable_token)"},
		},
		"no code": {
			fault:   wechattest.Fault{Endpoint: "tickettocode", Errcode: 40097},
			named:   []string{"resolved", "healed"},
			unnamed: []string{"published", "renewed"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := newScreen()
			err := run(t.Context(), Config{Out: out, For: 12 * time.Second, Listen: anyPort}, func(sim *wechattest.Simulator) { sim.Inject(tc.fault) })
			if err == nil {
				t.Fatalf("no error:\n%s", out)
			}
			for _, chapter := range tc.named {
				if !strings.Contains(err.Error(), chapter) {
					t.Errorf("the error does not name %q: %v", chapter, err)
				}
			}
			for _, chapter := range tc.unnamed {
				if strings.Contains(err.Error(), chapter) {
					t.Errorf("the error names %q: %v", chapter, err)
				}
			}
			if text := out.String(); !strings.Contains(text, "The last lines of the log") {
				t.Errorf("the log is not shown:\n%s", text)
			}
			checkMasked(t, out.String())
			checkNothingStays(t, out.String())
		})
	}
}

func TestTheUserEndsItAtOnceAndNothingStays(t *testing.T) {
	t.Parallel()
	// A port that is taken is not the end.
	l, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := newScreen()
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, Config{Out: out, Listen: l.Addr().String(), Color: true}) }()
	out.await(t, wordResolved)
	cancel()
	began := time.Now()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if took := time.Since(began); took > patience/4 {
		t.Errorf("it took %s to end", took)
	}
	text := out.String()
	for _, want := range []string{l.Addr().String() + " is taken", "upstream calls", "lives for 1m,", "\x1b["} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not shown:\n%s", want, text)
		}
	}
	checkNothingStays(t, text)
}

// gone is an audience that hears the introduction and leaves.
type gone struct{ *screen }

func (g gone) Write(p []byte) (int, error) {
	if strings.Contains(g.String(), "What happens here") {
		return 0, io.ErrClosedPipe
	}
	return g.screen.Write(p)
}

func TestItEndsWhenNobodyListens(t *testing.T) {
	t.Parallel()
	out := newScreen()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := Run(ctx, Config{Out: gone{out}, Listen: anyPort}); err != nil || ctx.Err() != nil {
		t.Errorf("Run: %v, %v", err, ctx.Err())
	}
	checkNothingStays(t, out.String())
}

func TestEndedBeforeItBeginsIsNoError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, Config{Out: newScreen(), Listen: anyPort}); err != nil {
		t.Error(err)
	}
}

func TestLivesFollowFromTheTimeThereIs(t *testing.T) {
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
		switch err := cfg.setDefaults(); {
		case tc.err != "":
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("For %s, Life %s: error %v, want %q", tc.given, tc.life, err, tc.err)
			}
		case err != nil || cfg.Life != tc.want:
			t.Errorf("For %s, Life %s: life %s, %v; want %s", tc.given, tc.life, cfg.Life, err, tc.want)
		}
	}
}
