//go:build unix

package main

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSameSeedDrawsTheSameSchedule(t *testing.T) {
	t.Parallel()
	faults := func(seed uint64) (list []string) {
		for _, f := range draw(seed, 10*time.Minute, 4, makeAccounts(60)) {
			list = append(list, fmt.Sprint(f.at, f.duration, f.name))
		}
		return list
	}
	first, again, other := faults(7), faults(7), faults(8)
	if len(first) < 100 {
		t.Errorf("only %d faults in ten minutes", len(first))
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("two schedules of one seed (-first +again):\n%s", diff)
	}
	same := 0
	for i := range min(len(first), len(other)) {
		if first[i] == other[i] {
			same++
		}
	}
	if same > len(first)/10 {
		t.Errorf("%d of %d faults are the same for another seed", same, len(first))
	}
}

func TestEveryFaultEndsWithinTheSchedule(t *testing.T) {
	t.Parallel()
	const duration = time.Minute
	for seed := range uint64(50) {
		for _, f := range draw(seed, duration, 4, makeAccounts(8)) {
			if f.at+f.duration > duration {
				t.Errorf("seed %d: %s at %s for %s", seed, f.name, f.at, f.duration)
			}
			if f.inject == nil {
				t.Errorf("seed %d: %s does nothing", seed, f.name)
			}
		}
	}
}

// echoThrough returns a connection through a proxy to a server that sends back what it receives.
func echoThrough(t *testing.T) (*proxy, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	p, err := newProxy(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		p.close()
		l.Close()
		<-done
	})
	if got := exchange(t, c, "a"); got != "a" {
		t.Fatalf("received %q through an open link", got)
	}
	return p, c
}

// exchange sends text, and returns what comes back, or the error.
func exchange(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(hang)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		return err.Error()
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil {
		return err.Error()
	}
	return string(b)
}

func TestSilentLinkDeliversWhenItOpens(t *testing.T) {
	t.Parallel()
	p, c := echoThrough(t)
	p.set(silent)
	if _, err := io.WriteString(c, "b"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatal("a silent link has delivered a byte")
	}
	p.set(open)
	if got := exchange(t, c, "c"); got != "b" { // in the order in which they were sent
		t.Errorf("received %q after the link opened, want %q", got, "b")
	}
}

func TestCutLinkEndsConnectionsAndAcceptsNone(t *testing.T) {
	t.Parallel()
	p, c := echoThrough(t)
	p.set(cut)
	if got := exchange(t, c, "b"); got == "b" {
		t.Error("a connection has survived the cut")
	}
	again, err := net.Dial("tcp", p.addr())
	if err == nil {
		if got := exchange(t, again, "c"); got == "c" {
			t.Error("a new connection passes a cut link")
		}
		again.Close()
	}
}

// newCheckerFixture returns a checker, the token of its first account, and a function that a consumer calls with the
// value and the generation that it holds.
func newCheckerFixture(t *testing.T) (c *checker, token string, observe func(value string, generation uint64)) {
	t.Helper()
	accounts := makeAccounts(8)
	a := accounts[0]
	c = newChecker(accounts, io.Discard)
	c.wechat = wechattest.New(wechattest.Config{
		Accounts: []wechattest.Account{{AppID: a.AppID, Secret: a.Secret}}, Overlap: -1,
	})
	token, err := c.wechat.ForeignRefresh(a.AppID, "token")
	if err != nil {
		t.Fatal(err)
	}
	c.start()
	return c, token, func(value string, generation uint64) {
		s := sample{AppID: a.AppID, Kind: "access_token", Value: value, Generation: generation, At: time.Now()}
		c.receive(time.Now(), observation{Name: kindReader + "1", PID: 1, Samples: []sample{s}})
	}
}

// A run without violations means something only if the checker finds each of these.
func TestCheckerFindsViolations(t *testing.T) {
	t.Parallel()
	type observe = func(value string, generation uint64)
	answered := func(symbol string) func(c *checker, _ string, _ observe) {
		return func(c *checker, _ string, _ observe) {
			a := answer{At: time.Now(), Subject: "s", AppID: c.accounts[0].AppID, Symbol: symbol}
			c.checkAnswer("consumer", a)
		}
	}
	for name, tt := range map[string]struct {
		events     func(c *checker, token string, observe observe)
		violations int
	}{
		"a valid token": {func(_ *checker, token string, observe observe) {
			observe(token, 1)
			observe(token, 1)
		}, 0},
		"no value before the first one": {func(_ *checker, token string, observe observe) {
			observe("", 0)
			observe(token, 1)
		}, 0},
		"a dead token": {func(c *checker, token string, observe observe) {
			observe(token, 1)
			c.wechat.Revoke(token)
			observe(token, 1)
			c.consumerKilled(kindReader + "1")
		}, 1},
		"a token that another system has replaced": {func(c *checker, token string, observe observe) {
			observe(token, 1)
			c.tokenReplaced(c.accounts[0].AppID)
			c.wechat.Revoke(token)
			observe(token, 1)
			c.consumerKilled(kindReader + "1")
		}, 0},
		"a gap": {func(_ *checker, token string, observe observe) {
			observe(token, 1)
			observe("", 0)
			observe(token, 1)
		}, 1},
		"a gap after a long disruption": {func(c *checker, token string, observe observe) {
			observe(token, 1)
			c.disrupt(effect{renewal: true})
			c.disruptions[0].from = time.Now().Add(-blockedEnough)
			observe("", 0)
			observe(token, 1)
		}, 0},
		"a generation that goes back": {func(_ *checker, token string, observe observe) {
			observe(token, 2)
			observe(token, 1)
		}, 1},
		"no answer":              {answered(symbolNone), 1},
		"a wrong answer":         {answered(symbolWrong), 1},
		"an error without cause": {answered("upstream"), 1},
		"an error while WeChat fails": {func(c *checker, token string, observe observe) {
			c.disrupt(effect{upstream: true})
			answered("upstream")(c, token, observe)
		}, 0},
	} {
		c, token, observe := newCheckerFixture(t)
		tt.events(c, token, observe)
		if len(c.violations) != tt.violations {
			t.Errorf("%s: violations %q, want %d", name, c.violations, tt.violations)
		}
	}
}

// The faults of a schedule must not explain everything: at most times a gap is a violation.
func TestScheduleExplainsFewGaps(t *testing.T) {
	t.Parallel()
	const duration = 3 * time.Minute
	explained, all := 0, 0
	for seed := range uint64(8) {
		accounts := makeAccounts(60)
		c := newChecker(accounts, io.Discard)
		began := time.Now()
		for _, f := range draw(seed, duration, 4, accounts) {
			if !f.harmless {
				d := &disruption{effect: f.effect, from: began.Add(f.at), to: began.Add(f.at + f.duration)}
				c.disruptions = append(c.disruptions, d)
			}
		}
		for at := renewAhead; at < duration; at += time.Second {
			all++
			if _, ok := c.renewalBlocked(accounts[1].AppID, began.Add(at)); ok {
				explained++
			}
		}
	}
	if explained > all/2 {
		t.Errorf("a gap is explained at %d of %d seconds", explained, all)
	}
}
