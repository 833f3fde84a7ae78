package worker

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// maxStatus limits the credentials of one status reply, so that it fits into a NATS message.
const maxStatus = 600

// urgency orders states for people: what needs attention comes first.
var urgency = map[messages.State]int{
	messages.StateExpired: 0, messages.StateMissing: 1, messages.StateRefused: 2, messages.StateFailing: 3,
	messages.StateNotPermitted: 4, messages.StateFresh: 5,
}

// status describes the credentials that this worker keeps. It is also the collector of their metric.
type status struct {
	worker, version string
	now             func() time.Time
	accounts        *accounts
	memory          *memory
	scheduler       *scheduler
}

// of is what this worker knows of one account, or ("") of all.
func (s *status) of(appid string) messages.Status {
	now := s.now()
	st := messages.Status{
		Worker: s.worker, Version: s.version, Time: now.UTC(), Accounts: s.accounts.len(),
		Summary: make(map[messages.State]int), Credentials: []messages.CredentialStatus{},
	}
	for _, c := range s.scheduler.snapshot(appid) {
		d := s.describe(now, c)
		st.Summary[d.State]++
		st.Credentials = append(st.Credentials, d)
	}
	slices.SortFunc(st.Credentials, func(a, b messages.CredentialStatus) int {
		return cmp.Or(cmp.Compare(urgency[a.State], urgency[b.State]), cmp.Compare(a.AppID, b.AppID),
			cmp.Compare(a.Kind, b.Kind))
	})
	if len(st.Credentials) > maxStatus {
		st.Credentials, st.Truncated = st.Credentials[:maxStatus], true
	}
	return st
}

// describe describes one credential.
func (s *status) describe(now time.Time, c scheduled) messages.CredentialStatus {
	held := s.memory.held(c.account.AppID, c.kind)
	l := policy.AtDay(now, s.memory.ledger(messages.Key(c.account.AppID, c.kind)))
	d := messages.CredentialStatus{
		AppID: c.account.AppID, Name: c.account.Name, Kind: c.kind, State: c.state(now, held, l),
		Reason: c.next.Reason, NextAttempt: c.next.At, LastAttempt: l.LastAttempt, Attempts: l.Attempts,
		CallsToday: l.Calls, Forced: l.Forced, Conflicts: l.Conflicts, LastConflict: l.LastConflict,
	}
	if c.running {
		d.Reason, d.NextAttempt = messages.ReasonRefreshing, time.Time{}
	}
	if o := c.obstacle; o != nil { // also while it is tried again
		d.Reason, d.HinderedSince = o.reason, o.since
	}
	if held != nil {
		d.Source, d.Generation, d.Revision, d.Worker = held.Source, held.Generation, held.Revision, held.Worker
		d.ObtainedAt, d.ExpiresAt = held.ObtainedAt, held.ExpiresAt
	}
	why := causeOf(c.obstacle, l)
	d.Error, d.ErrorClass, d.Errcode, d.RID, d.Advice = why.message, why.class, why.errcode, why.rid, why.advice
	d.LastForged = s.memory.forgedAt(messages.Key(c.account.AppID, c.kind))
	if d.Advice == "" && !d.LastForged.IsZero() && now.Sub(d.LastForged) < time.Hour {
		d.Advice = forgedAdvice
	}
	// The advice stays for an hour after a conflict, though the credential is fresh again.
	if d.Advice == "" && l.Conflicts > 0 && now.Sub(l.LastConflict) < time.Hour {
		d.Advice = ConflictAdvice(c.account.TokenAPI)
	}
	return d
}

// state is the state of a credential. What keeps this worker from refreshing it is a failure too, which no ledger
// entry may show.
func (c scheduled) state(now time.Time, held *messages.Credential, l store.Ledger) messages.State {
	state := policy.StateOf(now, held, l)
	if state == messages.StateFresh && c.obstacle != nil {
		return messages.StateFailing
	}
	return state
}

var descCredentials = prometheus.NewDesc("wxkeeper_credentials",
	"Credentials that this worker keeps, by kind and state.", []string{"kind", "state"}, nil)

var descThrottled = prometheus.NewDesc("wxkeeper_throttled_until_timestamp_seconds",
	"Until when a credential that WeChat refuses has to wait for the budget of refreshes for reports: the latest time, "+
		"in seconds since 1970, of all credentials of a kind; 0: none waits.", []string{"kind"}, nil)

// Describe is part of prometheus.Collector.
func (s *status) Describe(ch chan<- *prometheus.Desc) { ch <- descCredentials; ch <- descThrottled }

// Collect is part of prometheus.Collector: it makes the metric of the states at the time of the scrape.
func (s *status) Collect(ch chan<- prometheus.Metric) {
	type label struct {
		kind  messages.Kind
		state messages.State
	}
	now := s.now()
	count := make(map[label]int)
	for _, k := range messages.Kinds {
		for state := range urgency {
			count[label{k, state}] = 0
		}
	}
	throttled := make(map[messages.Kind]time.Time)
	for _, c := range s.scheduler.snapshot("") {
		held, l := s.memory.held(c.account.AppID, c.kind), s.memory.ledger(messages.Key(c.account.AppID, c.kind))
		count[label{c.kind, c.state(now, held, l)}]++
		if until := policy.ThrottledUntil(now, l, c.account.rule(c.kind), held); until.After(throttled[c.kind]) {
			throttled[c.kind] = until
		}
	}
	for _, k := range messages.Kinds {
		seconds := 0.0
		if until := throttled[k]; !until.IsZero() {
			seconds = float64(until.Unix())
		}
		ch <- prometheus.MustNewConstMetric(descThrottled, prometheus.GaugeValue, seconds, string(k))
	}
	for l, n := range count {
		ch <- prometheus.MustNewConstMetric(descCredentials, prometheus.GaugeValue, float64(n), string(l.kind),
			string(l.state))
	}
}
