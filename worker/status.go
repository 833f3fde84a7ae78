package worker

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

// maxStatus bounds the credentials of one status reply, so that it fits into a NATS message.
const maxStatus = 600

// urgency orders states for people: what needs attention comes first.
var urgency = map[messages.State]int{messages.StateExpired: 0, messages.StateMissing: 1, messages.StateRefused: 2, messages.StateFailing: 3, messages.StateFresh: 4}

// state names the state of a credential; see the diagram in doc.go.
func state(now time.Time, held *messages.Credential, l kv.Ledger) messages.State {
	switch {
	case held != nil && held.Valid(now) && isRefused(l, held):
		return messages.StateRefused
	case held != nil && held.Valid(now) && (l.Failure != nil || l.Attempts > 1):
		return messages.StateFailing
	case held != nil && held.Valid(now):
		return messages.StateFresh
	case held != nil || l.Generation > 0:
		return messages.StateExpired
	default:
		return messages.StateMissing
	}
}

// status is what this worker knows of one account, or ("") of all.
func (w *Worker) status(appid string) messages.Status {
	now := w.cfg.Now()
	st := messages.Status{
		Worker: w.cfg.Name, Version: w.cfg.Version, Time: now.UTC(), Accounts: w.accounts.len(),
		Summary: make(map[messages.State]int), Credentials: []messages.CredentialStatus{},
	}
	w.scheduler.each(func(it *item) {
		if appid != "" && it.account.AppID != appid {
			return
		}
		c := w.describe(now, it)
		st.Summary[c.State]++
		st.Credentials = append(st.Credentials, c)
	})
	slices.SortFunc(st.Credentials, func(a, b messages.CredentialStatus) int {
		return cmp.Or(cmp.Compare(urgency[a.State], urgency[b.State]), cmp.Compare(a.AppID, b.AppID), cmp.Compare(a.Kind, b.Kind))
	})
	if len(st.Credentials) > maxStatus {
		st.Credentials, st.Truncated = st.Credentials[:maxStatus], true
	}
	return st
}

// describe tells of one credential. The scheduler's mutex is held.
func (w *Worker) describe(now time.Time, it *item) messages.CredentialStatus {
	held, l := w.reader.Held(it.account.AppID, it.kind), rollDay(now, it.ledger)
	s := messages.CredentialStatus{
		AppID: it.account.AppID, Name: it.account.Name, Kind: it.kind, State: state(now, held, l),
		Reason: it.next.reason, NextAttempt: it.next.at, LastAttempt: l.LastAttempt, Attempts: l.Attempts,
		CallsToday: l.Calls, Forced: l.Forced, Conflicts: l.Conflicts, LastConflict: l.LastConflict,
	}
	if it.running {
		s.Reason, s.NextAttempt = messages.ReasonRefreshing, time.Time{}
	}
	if held != nil {
		s.Source, s.Generation, s.Revision, s.Worker = held.Source, held.Generation, held.Revision, held.Worker
		s.ObtainedAt, s.ExpiresAt = held.ObtainedAt, held.ExpiresAt
	}
	if f := l.Failure; f != nil {
		s.Error, s.ErrorClass, s.Errcode, s.RID, s.Advice = f.Message, f.Class, f.Errcode, f.RID, f.Advice
	}
	// A conflict of the last hour is worth a word, though the credential is fresh again.
	if s.Advice == "" && l.Conflicts > 0 && now.Sub(l.LastConflict) < time.Hour {
		s.Advice = AdviceConflict(it.account.TokenAPI)
	}
	return s
}

// collect makes the metric of the states.
func (w *Worker) collect(ch chan<- prometheus.Metric) {
	now := w.cfg.Now()
	count := make(map[[2]string]int)
	for _, k := range messages.Kinds {
		for s := range urgency {
			count[[2]string{string(k), string(s)}] = 0
		}
	}
	w.scheduler.each(func(it *item) {
		s := state(now, w.reader.Held(it.account.AppID, it.kind), it.ledger)
		count[[2]string{string(it.kind), string(s)}]++
	})
	for labels, n := range count {
		ch <- prometheus.MustNewConstMetric(descCredentials, prometheus.GaugeValue, float64(n), labels[0], labels[1])
	}
}
