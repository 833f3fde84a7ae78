package worker

import (
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
)

// admission limits what is in progress in this worker, and leaves room for every account
// (docs/architecture.md#resolve-8): an account gets another place only while it has fewer than three times as
// many as are free. So one account gets three quarters of the limit at most, and each further busy account as much
// as the others. Nothing is reserved: in a worker that keeps one account, that account gets the whole limit.
//
// Such a threshold is simple and needs no list of who is waiting: what is refused is sent again, and may be
// admitted by another worker. It is known from switches, which share the memory of their ports in this way.
type admission struct {
	limit    int
	what     string // what is counted, for errors: "requests in progress"
	accounts *accounts

	mu  sync.Mutex
	all int
	of  map[string]int // by AppID, only accounts that have something in progress
}

// unnamed has the places of requests whose account is not known yet, because only their body names it. No account
// has this AppID.
const unnamed = ""

// perFree is how many places an account may have for each free place.
const perFree = 3

// refusedFor is the retry_after of a request that was not admitted.
const refusedFor = 100 * time.Millisecond

func newAdmission(limit int, what string, accounts *accounts) *admission {
	return &admission{limit: limit, what: what, accounts: accounts, of: make(map[string]int)}
}

// enter gives an account a place, which leave gives back. Its error is a *messages.Error.
func (a *admission) enter(appid string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.refuses(appid); err != nil {
		return err
	}
	a.all++
	a.of[appid]++
	return nil
}

// leave gives a place back.
func (a *admission) leave(appid string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leaves(appid)
}

// move gives the place of one account to another account. If that is not admitted, it gives the place back to
// nobody and returns an error: the caller must not leave it.
func (a *admission) move(from, to string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leaves(from)
	if err := a.refuses(to); err != nil {
		return err
	}
	a.all++
	a.of[to]++
	return nil
}

// inProgress is how many places are taken.
func (a *admission) inProgress() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all
}

// leaves is leave for callers that hold mu.
func (a *admission) leaves(appid string) {
	a.all--
	if a.of[appid]--; a.of[appid] == 0 {
		delete(a.of, appid)
	}
}

// refuses returns why an account gets no place now. Callers hold mu.
func (a *admission) refuses(appid string) error {
	own, free := a.of[appid], a.limit-a.all
	switch {
	case free <= 0:
		return messages.Errorf(messages.Overloaded, "this worker has %d %s", a.limit, a.what).After(refusedFor)
	case own == 0, a.accounts.len() == 1:
		return nil
	case free == 1, own >= perFree*free: // the last place is for an account that has none, also if the limit is small
		return messages.Errorf(messages.Overloaded,
			"this account has %d of the %d %s that this worker allows; the free places are for other accounts",
			own, a.limit, a.what).After(refusedFor)
	}
	return nil
}
