package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// What is excused, and for how long.
const (
	// fresh is how old a sighting may be to be judged: what was seen earlier may have been good then.
	fresh = 250 * time.Millisecond
	// foreignHold is how long a consumer may hold what a foreign refresh killed: until it is noticed, reported, checked
	// with WeChat and renewed, by whoever is left of the fleet.
	foreignHold = 45 * time.Second
	// remint is how long a consumer may hold a classic token that a second mint of the fleet killed.
	remint = 12 * time.Second // a connection may be silent for 8 s
	// aftermath is for how long a trouble hinders after its end: backoff, election of a leader, a dead holder's lease.
	aftermath = 6 * time.Second
	// rebuilding is for how long a worker that starts may miss what a bucket has lost: it waits 8 s for the others.
	rebuilding = 15 * time.Second
	// enough is how much trouble in the time in which the fleet renews ahead explains that a credential dies.
	enough = 15 * time.Second
)

// trouble is a time in which something was wrong, for one account or for all. What was done to a worker or a server explains
// no gap by itself: that JetStream does not answer is measured, see [house.listen].
type trouble struct {
	from, to time.Time // to is zero while it lasts
	appid    string    // "": all
	upstream bool      // WeChat fails; otherwise NATS or a worker
	renewal  bool      // it fails at an interface that renewing needs
	lost     bool      // the bucket lost something
	deaf     bool      // JetStream does not answer
	// ledgerLost: the memory that the fleet has of calls and failures was lost.
	ledgerLost bool
}

// judge keeps what consumers see, and says what should not be.
type judge struct {
	accounts []account
	wechat   *wechattest.Simulator
	began    time.Time

	mu       sync.Mutex
	timeline io.Writer
	judging  time.Time // since every consumer has had everything; zero: not yet
	findings []string
	troubles []*trouble
	moved    map[string][]time.Time // by appid: when another system took a token, or an answer was lost
	sights   map[string]*sight      // by consumer, its process, and key
	seen     map[string]report      // the last of each consumer
	heard    map[string]time.Time   // and when
	missing  map[string]int         // by consumer: credentials of good accounts that it has not, at its last look at all of them
	figures  figures
}

// sight is what one process sees of one credential.
type sight struct {
	consumer, appid, kind string
	had                   bool // it had one
	generation            uint64
	since                 time.Time // of the trouble: without a value, or with a refused one
	verdict               wechattest.Verdict
}

// figures are counted for the summary.
type figures struct {
	looks, late          int
	answers              map[string]map[string]int // subject → symbol → number
	again                int                       // answers that needed more than one try
	slowest              time.Duration
	holds, gaps          []time.Duration // with a refused value; without one
	reminted             []time.Duration // those of holds that a second mint explains
	excusedGaps, troubls int
	deaf                 time.Duration
}

func newJudge(accounts []account, timeline io.Writer) *judge {
	return &judge{
		accounts: accounts, timeline: timeline, began: time.Now(),
		moved: make(map[string][]time.Time), sights: make(map[string]*sight), seen: make(map[string]report), heard: make(map[string]time.Time), missing: make(map[string]int),
		figures: figures{answers: make(map[string]map[string]int)},
	}
}

// say writes a line of the timeline.
func (j *judge) say(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.sayLocked(format, args...)
}

func (j *judge) sayLocked(format string, args ...any) {
	fmt.Fprintf(j.timeline, "%8.2fs  %s\n", time.Since(j.began).Seconds(), fmt.Sprintf(format, args...))
}

// begin begins to judge.
func (j *judge) begin() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.judging = time.Now()
}

// oops notes what should not be.
func (j *judge) oops(what string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.find("%s", what)
}

func (j *judge) find(format string, args ...any) {
	const most = 50 // the first ones tell
	if len(j.findings) == most {
		return
	}
	j.findings = append(j.findings, fmt.Sprintf("%.2fs: ", time.Since(j.began).Seconds())+fmt.Sprintf(format, args...))
	j.sayLocked("FOUND "+format, args...)
}

// begins notes a trouble; the function it returns notes its end.
func (j *judge) begins(f fault) (ends func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := &trouble{from: time.Now(), appid: f.appid, upstream: f.upstream, renewal: f.renewal, lost: f.lost, deaf: f.deaf, ledgerLost: f.lost && strings.Contains(f.name, "ledger")}
	j.troubles = append(j.troubles, t)
	if !f.deaf {
		j.figures.troubls++
	}
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		t.to = time.Now()
	}
}

// forgot says whether the fleet may have lost all that it knew of generations: the bucket and the ledger, within one life.
func (j *judge) forgot(now time.Time) bool {
	record, ledger := false, false
	for _, t := range j.troubles {
		if t.lost && now.Sub(t.from) < tokenLife {
			record, ledger = record || !t.ledgerLost, ledger || t.ledgerLost
		}
	}
	return record && ledger
}

// isMoved notes that another system took a token of an account, or that an answer with a new one was lost.
func (j *judge) isMoved(appid string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.moved[appid] = append(j.moved[appid], time.Now())
}

// handler hears what consumers tell.
func (j *judge) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var rep report
		if err := json.NewDecoder(io.LimitReader(r.Body, 16<<20)).Decode(&rep); err != nil {
			return // a consumer that was killed while it spoke
		}
		_ = json.NewEncoder(w).Encode(j.hear(time.Now(), rep))
	})
}

func (j *judge) hear(now time.Time, rep report) assignment {
	j.mu.Lock()
	defer j.mu.Unlock()
	told := assignment{}
	if len(rep.Sightings) == 0 {
		told.Accounts = j.accounts
	}
	j.seen[rep.Name], j.heard[rep.Name] = rep, now
	missing := 0
	for _, s := range rep.Sightings {
		a := j.account(s.AppID)
		if a.wrongSecret {
			continue
		}
		if s.Value == "" {
			missing++
		}
		if j.judging.IsZero() {
			continue
		}
		j.figures.looks++
		if now.Sub(s.At) > fresh {
			j.figures.late++
			continue
		}
		if j.sighted(now, rep, s) == wechattest.Dead {
			told.Dead = append(told.Dead, s)
		}
	}
	if missing == 0 || strings.HasPrefix(rep.Name, kindReader) { // a poller asks for a few, and for those that it missed again
		j.missing[rep.Name] = missing
	}
	for _, a := range rep.Answers {
		// What was asked before is not judged, though it is told now.
		if !j.judging.IsZero() && a.At.Add(-time.Duration(a.TookMS)*time.Millisecond).After(j.judging) {
			j.answered(rep.Name, a)
		}
	}
	return told
}

func (j *judge) account(appid string) account {
	for _, a := range j.accounts {
		if a.AppID == appid {
			return a
		}
	}
	return account{wrongSecret: true}
}

// sighted judges one sighting.
func (j *judge) sighted(now time.Time, rep report, s sighting) wechattest.Verdict {
	key := fmt.Sprintf("%s-%d %s.%s", rep.Name, rep.PID, s.AppID, s.Kind)
	st := j.sights[key]
	if st == nil {
		st = &sight{consumer: rep.Name, appid: s.AppID, kind: s.Kind}
		j.sights[key] = st
	}
	verdict := wechattest.Verdict("")
	if s.Value != "" {
		verdict = j.wechat.Judge(s.AppID, s.Kind, s.Value)
		// A poller asks one worker after another, and one that was frozen a moment ago may be behind.
		if s.Generation < st.generation && !j.forgot(now) && strings.HasPrefix(rep.Name, kindReader) {
			j.find("%s: generation %d after %d", key, s.Generation, st.generation)
		}
		st.generation = s.Generation
	} else if !st.had {
		return "" // it has just begun
	} else {
		st.generation = 0 // where record and ledger were lost it may begin anew, once the old value has ended
	}
	if verdict == st.verdict {
		return verdict
	}
	if !st.since.IsZero() { // the trouble of this sight ends, or changes
		j.ends(key, st, now)
	}
	st.verdict, st.had = verdict, true
	st.since = time.Time{}
	if verdict != wechattest.Valid {
		st.since = now
		j.sayLocked("%s: %s", key, orNothing(verdict))
	}
	return verdict
}

func orNothing(v wechattest.Verdict) string {
	if v == "" {
		return "has nothing valid"
	}
	return "holds a value that is " + string(v)
}

// ends judges a trouble of a consumer when it is over.
func (j *judge) ends(key string, st *sight, now time.Time) {
	lasted := now.Sub(st.since)
	j.sayLocked("%s: had %s for %.1f s", key, orNothing(st.verdict), lasted.Seconds())
	if st.verdict == "" {
		j.figures.gaps = append(j.figures.gaps, lasted)
		if why, ok := j.hindered(st.appid, st.since); ok {
			j.figures.excusedGaps++
		} else {
			j.find("%s had no value for %.1f s, and only %.1f s of trouble explain it", key, lasted.Seconds(), why.Seconds())
		}
		return
	}
	j.figures.holds = append(j.figures.holds, lasted)
	if st.verdict == wechattest.Dead && st.kind == "access_token" && j.wasMoved(st.appid, st.since) {
		if lasted > foreignHold {
			j.find("%s: a token that was moved was held for %.1f s", key, lasted.Seconds())
		}
		return
	}
	// Two tokens were minted in a row, because a worker or NATS was lost before the first was published: the second mint
	// kills the one that consumers hold, until they have the second.
	if st.verdict == wechattest.Dead && j.account(st.appid).TokenAPI == "token" && lasted < remint && j.disrupted(st.since) {
		j.figures.reminted = append(j.figures.reminted, lasted)
		return
	}
	// A ticket is good for two hours from when WeChat gave it out last, as WeChat's staff say; the simulation is stricter.
	if _, ok := j.hindered(st.appid, st.since); ok && st.verdict == wechattest.Expired && st.kind != "access_token" {
		return
	}
	j.find("%s held a value that WeChat says is %s for %.1f s", key, st.verdict, lasted.Seconds())
}

// disrupted says whether a worker or NATS was in trouble in the time in which WeChat accepts the token before the last.
func (j *judge) disrupted(t time.Time) bool {
	for _, tr := range j.troubles {
		if !tr.upstream && tr.from.Before(t) && (tr.to.IsZero() || t.Sub(tr.to) < overlap) {
			return true
		}
	}
	return false
}

// wasMoved says whether a token that died at t was killed by another system: WeChat lets it live for overlap at most.
func (j *judge) wasMoved(appid string, t time.Time) bool {
	for _, m := range j.moved[appid] {
		if !m.After(t) && t.Sub(m) < overlap+foreignHold {
			return true
		}
	}
	return false
}

// hindered is for how long something kept the fleet from renewing a credential in the time in which it renews ahead,
// and whether that explains that it died at t.
func (j *judge) hindered(appid string, t time.Time) (time.Duration, bool) {
	var sum time.Duration
	begin := t.Add(-renewAhead)
	covered := begin
	for _, tr := range j.troubles { // in the order of their beginning
		if tr.appid != "" && tr.appid != appid || !tr.renewal && !tr.lost && !tr.deaf {
			continue
		}
		to := tr.to.Add(aftermath)
		if tr.to.IsZero() || to.After(t) {
			to = t
		}
		from := tr.from
		if from.Before(covered) {
			from = covered
		}
		if to.After(from) {
			sum += to.Sub(from)
			covered = to
		}
	}
	return sum, sum >= enough
}

// answered judges what became of a request.
func (j *judge) answered(who string, a answer) {
	took := time.Duration(a.TookMS) * time.Millisecond
	bySymbol := j.figures.answers[a.Subject]
	if bySymbol == nil {
		bySymbol = make(map[string]int)
		j.figures.answers[a.Subject] = bySymbol
	}
	bySymbol[a.Symbol]++
	if a.Tries > 1 {
		j.figures.again++
	}
	j.figures.slowest = max(j.figures.slowest, took)
	switch {
	case a.Symbol == "ok", j.account(a.AppID).wrongSecret && a.Symbol == "no_credential":
	case a.Symbol == "none":
		j.find("%s: no answer on %s for %s after %d tries in %s: %s", who, a.Subject, a.AppID, a.Tries, took, a.Message)
	case a.Symbol == "wrong":
		j.find("%s: a wrong answer on %s for %s: %s", who, a.Subject, a.AppID, a.Message)
	case !j.excuses(a, a.At.Add(-took-lookEvery), a.At):
		j.find("%s: %s on %s for %s, and WeChat is well: %s", who, a.Symbol, a.Subject, a.AppID, a.Message)
	}
}

// excuses says whether WeChat failed, or a token was moved, so that a request of that time may end in an error. A worker
// that was frozen with a request in hand answers that WeChat was not heard in time, and one that starts with an empty
// bucket has no credential until the others have put back what was lost.
func (j *judge) excuses(a answer, from, to time.Time) bool {
	appid := a.AppID
	if j.wasMoved(appid, to) {
		return true
	}
	for _, t := range j.troubles {
		after := aftermath
		if t.lost {
			after = rebuilding
		}
		explains := t.upstream || a.Symbol == "upstream_timeout" || t.lost && a.Symbol == "no_credential"
		if explains && (t.appid == "" || t.appid == appid) && t.from.Before(to) && (t.to.IsZero() || t.to.Add(after).After(from)) {
			return true
		}
	}
	for _, st := range j.sights { // nobody can resolve without a token
		if st.appid == appid && st.kind == "access_token" && !st.since.IsZero() {
			return true
		}
	}
	return false
}

// complete says whether every consumer had everything at its last look.
func (j *judge) complete(consumers []*process) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range consumers {
		if n, ok := j.missing[c.name]; !ok || n > 0 {
			return fmt.Errorf("%s misses %d credentials", c.name, n)
		}
		if silent := time.Since(j.heard[c.name]); silent > 5*time.Second {
			return fmt.Errorf("%s says nothing for %s", c.name, silent)
		}
	}
	for key, st := range j.sights {
		if !st.since.IsZero() && j.seen[st.consumer].PID > 0 && key == fmt.Sprintf("%s-%d %s.%s", st.consumer, j.seen[st.consumer].PID, st.appid, st.kind) {
			return fmt.Errorf("%s: %s", key, orNothing(st.verdict))
		}
	}
	return nil
}

// gone forgets what a process saw that was ended on purpose: a trouble that it had is judged.
func (j *judge) gone(consumer string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for key, st := range j.sights {
		if st.consumer != consumer {
			continue
		}
		if !st.since.IsZero() {
			j.ends(key, st, time.Now())
		}
		delete(j.sights, key)
	}
	delete(j.missing, consumer)
}
