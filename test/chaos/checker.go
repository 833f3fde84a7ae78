//go:build unix

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

// maxSampleAge is how old a sample may be to be checked: the value of an older one may have been valid when it
// was taken.
const maxSampleAge = 250 * time.Millisecond

// checker compares what consumers see with the simulated WeChat, and collects the violations.
type checker struct {
	accounts []account
	wechat   *wechattest.Simulator
	began    time.Time

	mu          sync.Mutex
	timeline    io.Writer
	checking    time.Time // since every consumer had every credential; zero: not yet
	violations  []string
	disruptions []*disruption
	replaced    map[string][]time.Time // by appid: another system replaced the token, or WeChat's answer was lost
	holdings    map[string]*holding    // by consumer, its process, and key
	latest      map[string]observation // by consumer
	received    map[string]time.Time   // by consumer: when its latest observation arrived
	missing     map[string]int         // by consumer: credentials that its latest complete observation lacks
	figures     figures
}

// holding is what one process of a consumer holds of one credential.
type holding struct {
	consumer, appid, kind string
	had                   bool // it has had a value
	generation            uint64
	since                 time.Time           // of the present problem: no value, or one that WeChat refuses
	validity              wechattest.Validity // of its value; empty: it has none
}

// figures are counted for the summary.
type figures struct {
	samples, late   int
	answers         map[string]map[string]int // subject → symbol → number
	retried         int                       // requests with more than one attempt
	slowest         time.Duration
	refused, gaps   []time.Duration // how long consumers held a refused value, or none
	reminted        []time.Duration // those of refused that a second mint explains
	explainedGaps   int
	disruptions     int
	jetStreamOutage time.Duration
}

func newChecker(accounts []account, timeline io.Writer) *checker {
	return &checker{
		accounts: accounts, timeline: timeline, began: time.Now(),
		replaced: make(map[string][]time.Time), holdings: make(map[string]*holding),
		latest: make(map[string]observation), received: make(map[string]time.Time), missing: make(map[string]int),
		figures: figures{answers: make(map[string]map[string]int)},
	}
}

// print writes a line of the timeline.
func (c *checker) print(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.printLocked(format, args...)
}

func (c *checker) printLocked(format string, args ...any) {
	fmt.Fprintf(c.timeline, "%8.2fs  %s\n", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
}

// start starts the checks. Before it, credentials may be missing.
func (c *checker) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checking = time.Now()
}

// fail records a violation.
func (c *checker) fail(violation string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked("%s", violation)
}

func (c *checker) failLocked(format string, args ...any) {
	const most = 50 // later ones are mostly consequences
	if len(c.violations) == most {
		return
	}
	at := fmt.Sprintf("%.2fs: ", time.Since(c.began).Seconds())
	c.violations = append(c.violations, at+fmt.Sprintf(format, args...))
	c.printLocked("VIOLATION "+format, args...)
}

// handler receives the observations of consumers.
func (c *checker) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var o observation
		if err := json.NewDecoder(io.LimitReader(r.Body, 16<<20)).Decode(&o); err != nil {
			return // the consumer was killed while it sent
		}
		_ = json.NewEncoder(w).Encode(c.receive(time.Now(), o))
	})
}

// receive checks an observation.
func (c *checker) receive(now time.Time, o observation) instruction {
	c.mu.Lock()
	defer c.mu.Unlock()
	reply := instruction{}
	if len(o.Samples) == 0 {
		reply.Accounts = c.accounts
	}
	c.latest[o.Name], c.received[o.Name] = o, now
	missing := 0
	for _, s := range o.Samples {
		a := c.account(s.AppID)
		if a.wrongSecret {
			continue
		}
		if s.Value == "" {
			missing++
		}
		if c.checking.IsZero() {
			continue
		}
		c.figures.samples++
		if now.Sub(s.At) > maxSampleAge {
			c.figures.late++
			continue
		}
		if c.checkSample(now, o, s) == wechattest.Dead {
			reply.Dead = append(reply.Dead, s)
		}
	}
	// A poller asks for a few credentials only. It asks again for those that were missing.
	if missing == 0 || strings.HasPrefix(o.Name, kindReader) {
		c.missing[o.Name] = missing
	}
	for _, a := range o.Answers {
		asked := a.At.Add(-time.Duration(a.TookMS) * time.Millisecond)
		if !c.checking.IsZero() && asked.After(c.checking) {
			c.checkAnswer(o.Name, a)
		}
	}
	return reply
}

func (c *checker) account(appid string) account {
	for _, a := range c.accounts {
		if a.AppID == appid {
			return a
		}
	}
	return account{wrongSecret: true}
}

// checkSample checks one sample, and returns whether its value is valid for WeChat. The result is empty without a
// value.
func (c *checker) checkSample(now time.Time, o observation, s sample) wechattest.Validity {
	key := holdingKey(o.Name, o.PID, s.AppID, s.Kind)
	h := c.holdings[key]
	if h == nil {
		h = &holding{consumer: o.Name, appid: s.AppID, kind: s.Kind}
		c.holdings[key] = h
	}
	validity := wechattest.Validity("")
	switch {
	case s.Value != "":
		validity = c.wechat.Validity(s.AppID, s.Kind, s.Value)
		// A poller asks one worker after another. A worker that was frozen a moment ago may have an older generation.
		if s.Generation < h.generation && !c.generationsLost(now) && strings.HasPrefix(o.Name, kindReader) {
			c.failLocked("%s: generation %d after %d", key, s.Generation, h.generation)
		}
		h.generation = s.Generation
	case !h.had:
		return "" // the consumer has just started
	default:
		h.generation = 0 // if record and ledger were lost, the count starts again once the old value has expired
	}
	if validity == h.validity {
		return validity
	}
	if !h.since.IsZero() {
		c.problemEnded(key, h, now)
	}
	h.validity, h.had = validity, true
	h.since = time.Time{}
	if validity != wechattest.Valid {
		h.since = now
		c.printLocked("%s: %s", key, describe(validity))
	}
	return validity
}

func holdingKey(consumer string, pid int, appid, kind string) string {
	return fmt.Sprintf("%s-%d %s.%s", consumer, pid, appid, kind)
}

func describe(v wechattest.Validity) string {
	if v == "" {
		return "no valid value"
	}
	return "its value is " + string(v)
}

// problemEnded checks a problem of a consumer when it is over: either something explains its duration, or it is a
// violation.
func (c *checker) problemEnded(key string, h *holding, now time.Time) {
	lasted := now.Sub(h.since)
	c.printLocked("%s: %s for %.1f s", key, describe(h.validity), lasted.Seconds())
	if h.validity == "" {
		c.figures.gaps = append(c.figures.gaps, lasted)
		if blocked, ok := c.renewalBlocked(h.appid, h.since); ok {
			c.figures.explainedGaps++
		} else {
			c.failLocked("%s: no value for %.1f s, but disruptions blocked its renewal for only %.1f s",
				key, lasted.Seconds(), blocked.Seconds())
		}
		return
	}
	c.figures.refused = append(c.figures.refused, lasted)
	if h.validity == wechattest.Dead && h.kind == "access_token" && c.wasReplaced(h.appid, h.since) {
		if lasted > maxConflictHold {
			c.failLocked("%s: holds a token for %.1f s after another system replaced it", key, lasted.Seconds())
		}
		return
	}
	// The fleet minted two classic tokens in a row, because a worker or NATS was lost before it had published the
	// first. The second mint kills the token that consumers hold, until they receive the second.
	classic := c.account(h.appid).TokenAPI == "token"
	if h.validity == wechattest.Dead && classic && lasted < maxRemintHold && c.fleetDisrupted(h.since) {
		c.figures.reminted = append(c.figures.reminted, lasted)
		return
	}
	// WeChat's staff say that a ticket is valid for two hours after WeChat last returned it; the simulation is
	// stricter.
	if _, ok := c.renewalBlocked(h.appid, h.since); ok && h.validity == wechattest.Expired && h.kind != "access_token" {
		return
	}
	c.failLocked("%s: holds a value that is %s, for %.1f s", key, h.validity, lasted.Seconds())
}

// checkAnswer checks the outcome of a request.
func (c *checker) checkAnswer(consumer string, a answer) {
	took := time.Duration(a.TookMS) * time.Millisecond
	bySymbol := c.figures.answers[a.Subject]
	if bySymbol == nil {
		bySymbol = make(map[string]int)
		c.figures.answers[a.Subject] = bySymbol
	}
	bySymbol[a.Symbol]++
	if a.Attempts > 1 {
		c.figures.retried++
	}
	c.figures.slowest = max(c.figures.slowest, took)
	switch {
	case a.Symbol == symbolOK, c.account(a.AppID).wrongSecret && a.Symbol == "no_credential":
	case a.Symbol == symbolNone:
		c.failLocked("%s: no answer on %s for %s after %d attempts in %s: %s",
			consumer, a.Subject, a.AppID, a.Attempts, took, a.Message)
	case a.Symbol == symbolWrong:
		c.failLocked("%s: a wrong answer on %s for %s: %s", consumer, a.Subject, a.AppID, a.Message)
	case !c.errorExplained(a, a.At.Add(-took-sampleEvery), a.At):
		c.failLocked("%s: %s on %s for %s, but nothing explains it: %s",
			consumer, a.Symbol, a.Subject, a.AppID, a.Message)
	}
}

// allFresh returns an error unless every consumer had every credential, valid, in its latest observation.
func (c *checker) allFresh(consumers []*process) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range consumers {
		if n, ok := c.missing[p.name]; !ok || n > 0 {
			return fmt.Errorf("%s lacks %d credentials", p.name, n)
		}
		if age := time.Since(c.received[p.name]); age > 5*time.Second {
			return fmt.Errorf("%s has sent no observation for %s", p.name, age)
		}
	}
	for key, h := range c.holdings {
		pid := c.latest[h.consumer].PID // other processes of the consumer have exited
		if !h.since.IsZero() && key == holdingKey(h.consumer, pid, h.appid, h.kind) {
			return fmt.Errorf("%s: %s", key, describe(h.validity))
		}
	}
	return nil
}

// consumerKilled ends the problems of a consumer that chaos has killed, and forgets what it held.
func (c *checker) consumerKilled(consumer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, h := range c.holdings {
		if h.consumer != consumer {
			continue
		}
		if !h.since.IsZero() {
			c.problemEnded(key, h, time.Now())
		}
		delete(c.holdings, key)
	}
	delete(c.missing, consumer)
}
