package worker

import (
	"fmt"

	"github.com/wxkeeper/wxkeeper/messages"
)

// trouble is what keeps this worker from refreshing credentials.
type trouble struct {
	credentials int    // that are due and cannot be refreshed
	why         string // of the one that could not be refreshed for the longest time
	// everywhere: the reason is NATS, and not one account: the turns of two accounts (or of the only one) were given up
	// several times, and no turn has been completed since. One account, for which a permission is missing, makes no
	// worker unready.
	everywhere bool
}

func (t trouble) String() string {
	if t.credentials == 1 {
		return "1 credential is due: " + t.why
	}
	return fmt.Sprintf("%d credentials are due: %s", t.credentials, t.why)
}

// trouble returns what keeps this worker from refreshing credentials.
func (s *scheduler) trouble() (t trouble) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept, stuck := make(map[string]bool), make(map[string]bool)
	var first *obstacle
	for _, it := range s.items {
		kept[it.account.AppID] = true
		o := it.last.obstacle
		if o == nil {
			continue
		}
		t.credentials++
		if first == nil || o.since.Before(first.since) {
			first, t.why = o, o.cause.String()
		}
		isNATS := o.reason == messages.ReasonDisconnected || o.reason == messages.ReasonUnwritable
		if isNATS && o.turns > untoldTurns && !o.since.Before(s.tookAt) {
			stuck[it.account.AppID] = true
		}
	}
	t.everywhere = len(stuck) >= min(2, len(kept)) && len(stuck) > 0
	return t
}
