package worker

import (
	"context"
	"errors"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// questionPatience is how long a report waits in all until WeChat may be asked again. With the turn that follows, the
// reply arrives before a consumer gives up.
const questionPatience = 8 * time.Second

// errNoQuestion is returned by a turn if WeChat must be asked about a token, and may not be asked yet: another worker
// has just asked.
var errNoQuestion = errors.New("WeChat may not be asked about the token yet")

// awaitQuestion waits until WeChat may be asked about the current token, if a report needs that: its evidence is newer
// than WeChat's last answer. It waits until latest, or not at all. waited reports that something may have changed.
func (r *refresher) awaitQuestion(
	ctx context.Context, a *Account, kind messages.Kind, report policy.Report, latest time.Time,
) (waited bool, err error) {
	key := messages.Key(a.AppID, kind)
	replaced := r.memory.whenReplaced(key) // before the look at the memory, so that no change is missed
	current, invalid := r.memory.get(a.AppID, kind)
	now, l := r.clock.Now(), r.memory.ledger(key)
	if invalid != nil {
		current = nil
	}
	if !needsQuestion(now, l, kind, current, report) {
		return false, nil
	}
	at := policy.QuestionAt(now, l, report.Own)
	wait := at.Sub(now)
	if wait <= 0 {
		return false, nil
	}
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(latest) {
		latest = deadline
	}
	if at.After(latest) {
		return false, messages.Errorf(messages.Throttled, "WeChat was asked about %s too often; it may be asked again at %s",
			key, at.UTC().Format(time.TimeOnly)).After(wait)
	}
	r.clock.Wait(ctx, wait, replaced)
	return true, nil
}

// needsQuestion reports whether WeChat must be asked about the current token to answer a report.
func needsQuestion(
	now time.Time, l store.Ledger, kind messages.Kind, current *messages.Credential, report policy.Report,
) bool {
	return kind == messages.AccessToken && current != nil && report.Names(current) &&
		policy.VerdictOf(now, l, current, report) == ""
}

// askedAt is the time before WeChat was last asked about a token; zero: never.
func askedAt(l store.Ledger) time.Time {
	if l.Probe == nil {
		return time.Time{}
	}
	return l.Probe.At
}
