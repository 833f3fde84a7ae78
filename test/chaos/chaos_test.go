package main

import (
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patienceOfTests = 30 * time.Second

func TestSameSeedDrawsTheSameSchedule(t *testing.T) {
	t.Parallel()
	names := func(seed uint64) (list []string) {
		for _, f := range draw(seed, 10*time.Minute, 4, makeAccounts(60)) {
			list = append(list, f.at.String()+f.lasts.String()+f.name)
		}
		return list
	}
	a, b, other := names(7), names(7), names(8)
	if len(a) < 100 || len(a) != len(b) {
		t.Fatalf("%d and %d faults in ten minutes", len(a), len(b))
	}
	same := 0
	for i := range a {
		if a[i] != b[i] {
			t.Fatalf("fault %d: %s and %s", i, a[i], b[i])
		}
		if i < len(other) && a[i] == other[i] {
			same++
		}
	}
	if same > len(a)/10 {
		t.Errorf("%d of %d faults are the same for another seed", same, len(a))
	}
}

func TestScheduleEndsWhatItBegins(t *testing.T) {
	t.Parallel()
	const lasts = time.Minute
	for seed := range uint64(50) {
		for _, f := range draw(seed, lasts, 4, makeAccounts(8)) {
			if f.at+f.lasts > lasts || f.begin == nil {
				t.Errorf("seed %d: %s at %s for %s", seed, f.name, f.at, f.lasts)
			}
		}
	}
}

// echoThrough is a connection through a proxy to a server that sends back what it gets.
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
		t.Fatalf("through an open way comes %q", got)
	}
	return p, c
}

func exchange(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(patienceOfTests)); err != nil {
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

func TestSilentWayKeepsWhatIsSentUntilItOpens(t *testing.T) {
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
		t.Fatal("something came through a silent way")
	}
	p.set(open)
	if got := exchange(t, c, "c"); got != "b" { // what was sent first comes first
		t.Errorf("after it has opened comes %q", got)
	}
}

func TestCutWayEndsConnectionsAndTakesNone(t *testing.T) {
	t.Parallel()
	p, c := echoThrough(t)
	p.set(cut)
	if got := exchange(t, c, "b"); got == "b" {
		t.Error("a connection has survived the cut")
	}
	again, err := net.Dial("tcp", p.addr())
	if err == nil {
		if got := exchange(t, again, "c"); got == "c" {
			t.Error("a new connection passes the cut")
		}
		again.Close()
	}
}

// newBench is a judge and one consumer with a token that WeChat knows.
func newBench(t *testing.T) (j *judge, token string, look func(value string, generation uint64)) {
	t.Helper()
	accounts := makeAccounts(8)
	a := accounts[0]
	j = newJudge(accounts, io.Discard)
	j.wechat = wechattest.New(wechattest.Config{Accounts: []wechattest.Account{{AppID: a.AppID, Secret: a.Secret}}, Overlap: -1})
	token, err := j.wechat.ForeignRefresh(a.AppID, "token")
	if err != nil {
		t.Fatal(err)
	}
	j.begin()
	return j, token, func(value string, generation uint64) {
		j.hear(time.Now(), report{Name: kindReader + "1", PID: 1, Sightings: []sighting{{AppID: a.AppID, Kind: "access_token", Value: value, Generation: generation, At: time.Now()}}})
	}
}

// What the judge must find, so that a run that finds nothing means something.
func TestJudgeFinds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		live  func(j *judge, token string, look func(string, uint64))
		finds int
	}{
		"nothing where all is well":      {func(_ *judge, token string, look func(string, uint64)) { look(token, 1); look(token, 1) }, 0},
		"nothing before the first value": {func(_ *judge, token string, look func(string, uint64)) { look("", 0); look(token, 1) }, 0},
		"a dead token": {func(j *judge, token string, look func(string, uint64)) {
			look(token, 1)
			j.wechat.Revoke(token)
			look(token, 1)
			j.gone(kindReader + "1")
		}, 1},
		"no dead token that another system has killed": {func(j *judge, token string, look func(string, uint64)) {
			look(token, 1)
			j.isMoved(j.accounts[0].AppID)
			j.wechat.Revoke(token)
			look(token, 1)
			j.gone(kindReader + "1")
		}, 0},
		"a gap": {func(j *judge, token string, look func(string, uint64)) { look(token, 1); look("", 0); look(token, 1) }, 1},
		"no gap after long trouble": {func(j *judge, token string, look func(string, uint64)) {
			look(token, 1)
			j.begins(fault{renewal: true})
			j.troubles[0].from = time.Now().Add(-enough)
			look("", 0)
			look(token, 1)
		}, 0},
		"a generation that goes back": {func(_ *judge, token string, look func(string, uint64)) { look(token, 2); look(token, 1) }, 1},
		"no answer": {func(j *judge, _ string, _ func(string, uint64)) {
			j.answered("c", answer{At: time.Now(), Subject: "s", AppID: j.accounts[0].AppID, Symbol: "none"})
		}, 1},
		"a wrong answer": {func(j *judge, _ string, _ func(string, uint64)) {
			j.answered("c", answer{At: time.Now(), Subject: "s", AppID: j.accounts[0].AppID, Symbol: "wrong"})
		}, 1},
		"an error without a reason": {func(j *judge, _ string, _ func(string, uint64)) {
			j.answered("c", answer{At: time.Now(), Subject: "s", AppID: j.accounts[0].AppID, Symbol: "upstream"})
		}, 1},
		"no error while WeChat fails": {func(j *judge, _ string, _ func(string, uint64)) {
			j.begins(fault{upstream: true})
			j.answered("c", answer{At: time.Now(), Subject: "s", AppID: j.accounts[0].AppID, Symbol: "upstream"})
		}, 0},
	} {
		j, token, look := newBench(t)
		tt.live(j, token, look)
		if len(j.findings) != tt.finds {
			t.Errorf("%s: found %q", name, j.findings)
		}
	}
}

// What is drawn must not explain everything: a gap is a finding for most of the time.
func TestScheduleExcusesLittle(t *testing.T) {
	t.Parallel()
	const lasts = 3 * time.Minute
	excused, all := 0, 0
	for seed := range uint64(8) {
		accounts := makeAccounts(60)
		j := newJudge(accounts, io.Discard)
		began := time.Now()
		for _, f := range draw(seed, lasts, 4, accounts) {
			if !f.harmless {
				j.troubles = append(j.troubles, &trouble{from: began.Add(f.at), to: began.Add(f.at + f.lasts), appid: f.appid, renewal: f.renewal, lost: f.lost})
			}
		}
		for at := renewAhead; at < lasts; at += time.Second {
			all++
			if _, ok := j.hindered(accounts[1].AppID, began.Add(at)); ok {
				excused++
			}
		}
	}
	if excused > all/2 {
		t.Errorf("a gap is explained at %d of %d seconds", excused, all)
	}
}
