//go:build unix

package main

import "time"

// What explains a problem, and how long it may last then.
const (
	// maxConflictHold is how long a consumer may hold a token that another system replaced: until the consumer
	// reports it, a worker asks WeChat whether it is alive, and the fleet, of which some workers may be down,
	// renews it.
	maxConflictHold = 45 * time.Second
	// maxRemintHold is how long a consumer may hold a classic token that a second mint of the fleet killed: its
	// connection may be silent for 8 s.
	maxRemintHold = 12 * time.Second
	// recoveryTime is how long a disruption has effects after its end: backoff, the election of a leader, the
	// lease of a worker that was killed.
	recoveryTime = 6 * time.Second
	// rebuildTime is how long a worker that starts may lack what a bucket has lost: it leaves the other workers 8
	// s to publish it.
	rebuildTime = 15 * time.Second
	// blockedEnough is how long, of the time in which the fleet renews ahead, disruptions must block the renewal of a
	// credential to explain that it expires.
	blockedEnough = 15 * time.Second
)

// effect is what a fault does. What is done to a worker or a server has no effect here: it explains no gap by
// itself, and [stack.watchJetStream] measures whether JetStream answers.
type effect struct {
	appid       string // the account that it affects; empty: all
	upstream    bool   // WeChat fails
	renewal     bool   // WeChat fails at an interface that a renewal needs
	lost        bool   // a bucket lost something
	ledgerLost  bool   // that bucket is the ledger: the fleet forgets its calls and failures
	unavailable bool   // JetStream does not answer
}

// disruption is a time in which an effect lasts.
type disruption struct {
	effect
	from, to time.Time // to is zero while it lasts
}

// disrupt records that a disruption begins. The function it returns records the end.
func (c *checker) disrupt(e effect) (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &disruption{effect: e, from: time.Now()}
	c.disruptions = append(c.disruptions, d)
	if !e.unavailable {
		c.figures.disruptions++
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		d.to = time.Now()
	}
}

// tokenReplaced records that another system replaced the token of an account, or that WeChat's answer with a new
// token was lost.
func (c *checker) tokenReplaced(appid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replaced[appid] = append(c.replaced[appid], time.Now())
}

// wasReplaced returns whether another system may have killed a token that died at t: WeChat accepts a replaced token
// until overlap has passed.
func (c *checker) wasReplaced(appid string, t time.Time) bool {
	for _, at := range c.replaced[appid] {
		if !at.After(t) && t.Sub(at) < overlap+maxConflictHold {
			return true
		}
	}
	return false
}

// generationsLost returns whether the fleet may have lost every generation number: those of the bucket and those
// of the ledger, within one life of a credential.
func (c *checker) generationsLost(now time.Time) bool {
	record, ledger := false, false
	for _, d := range c.disruptions {
		if d.lost && now.Sub(d.from) < tokenLife {
			record, ledger = record || !d.ledgerLost, ledger || d.ledgerLost
		}
	}
	return record && ledger
}

// fleetDisrupted returns whether a fault hit a worker or NATS within the overlap before t.
func (c *checker) fleetDisrupted(t time.Time) bool {
	for _, d := range c.disruptions {
		if !d.upstream && d.from.Before(t) && (d.to.IsZero() || t.Sub(d.to) < overlap) {
			return true
		}
	}
	return false
}

// renewalBlocked returns for how long disruptions blocked the renewal of a credential in the time in which the fleet
// renews ahead, and whether that explains that the credential expired at t.
func (c *checker) renewalBlocked(appid string, t time.Time) (time.Duration, bool) {
	var sum time.Duration
	begin := t.Add(-renewAhead)
	covered := begin
	for _, d := range c.disruptions { // ordered by their begin
		if d.appid != "" && d.appid != appid || !d.renewal && !d.lost && !d.unavailable {
			continue
		}
		to := d.to.Add(recoveryTime)
		if d.to.IsZero() || to.After(t) {
			to = t
		}
		from := d.from
		if from.Before(covered) {
			from = covered
		}
		if to.After(from) {
			sum += to.Sub(from)
			covered = to
		}
	}
	return sum, sum >= blockedEnough
}

// errorExplained returns whether a disruption or a replaced token explains that a request between the two times
// ended in an error. A worker that was frozen during a request answers upstream_timeout. A worker that starts
// with an empty bucket has no credential until the other workers have published again what was lost.
func (c *checker) errorExplained(a answer, from, to time.Time) bool {
	if c.wasReplaced(a.AppID, to) {
		return true
	}
	for _, d := range c.disruptions {
		after := recoveryTime
		if d.lost {
			after = rebuildTime
		}
		affects := d.appid == "" || d.appid == a.AppID
		explains := d.upstream || a.Symbol == "upstream_timeout" || d.lost && a.Symbol == "no_credential"
		overlaps := d.from.Before(to) && (d.to.IsZero() || d.to.Add(after).After(from))
		if affects && explains && overlaps {
			return true
		}
	}
	for _, h := range c.holdings { // without a valid token no worker can resolve
		if h.appid == a.AppID && h.kind == "access_token" && !h.since.IsZero() {
			return true
		}
	}
	return false
}
