package demo

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/safetext"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// endpoints are the endpoints of the simulated WeChat, in the order in which they are shown.
var endpoints = []string{"stable_token", "token", "getticket", "tickettocode", "get_api_domain_ip"}

// printSummary prints how many calls were made, and what came of them. Nothing is printed after it.
func (s *story) printSummary(lasted time.Duration) {
	calls := strings.Join(countCalls(s.sim.Snapshot()), ", ")
	var b strings.Builder
	b.WriteString(s.line(wordEnded, "after "+span(lasted)))
	s.mu.Lock()
	safetext.Fprintf(&b, "\n  upstream calls  %s\n", calls)
	safetext.Fprintf(&b, "  refreshes       %s %d, %s %d, tickets %d (while WeChat accepted the old value)\n",
		messages.SourceStableToken, s.refreshed[messages.SourceStableToken],
		messages.SourceToken, s.refreshed[messages.SourceToken], s.refreshed[messages.SourceGetTicket])
	safetext.Fprintf(&b, "  resolves        %d answered, %d refused (only the demo's own)\n", s.resolves, s.refusals)
	safetext.Fprintf(&b, "  conflicts       %d made, %d detected", s.kills, s.conflicts)
	if len(s.heals) > 0 {
		safetext.Fprintf(&b, ", healed within %s", span(slices.Max(s.heals)))
	}
	if s.failures > 0 {
		safetext.Fprintf(&b, "\n  failures        %s to refresh a credential", count(s.failures, "attempt"))
	}
	s.mu.Unlock()
	s.printLast(b.String() + "\n")
}

// countCalls returns the number of calls of each endpoint, and of the refused ones by errcode, in words.
func countCalls(snapshot wechattest.Snapshot) []string {
	var out []string
	for _, ep := range endpoints {
		calls, errcodes := 0, make(map[int]int)
		for _, account := range snapshot.Accounts {
			calls += account[ep].Calls
			for code, n := range account[ep].Errcodes {
				errcodes[code] += n
			}
		}
		delete(errcodes, 0)
		var refused []string
		for _, code := range slices.Sorted(maps.Keys(errcodes)) {
			refused = append(refused, fmt.Sprintf("%d with errcode %d", errcodes[code], code))
		}
		line := fmt.Sprintf("%s %d", ep, calls)
		if len(refused) > 0 {
			line += " (" + strings.Join(refused, ", ") + ")"
		}
		out = append(out, line)
	}
	return out
}
