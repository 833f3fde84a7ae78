package demo

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// endpoints are those of the simulated WeChat, in the order in which they are shown.
var endpoints = []string{"stable_token", "token", "getticket", "tickettocode", "get_api_domain_ip"}

// sumUp tells what it all has cost, and brought. Nothing is told after it.
func (s *story) sumUp(lasted time.Duration) {
	calls := strings.Join(upstream(s.sim.Snapshot()), ", ")
	var b strings.Builder
	b.WriteString(s.line(wordEnded, "after "+span(lasted)))
	s.mu.Lock()
	fmt.Fprintf(&b, "\n  upstream calls  %s\n", calls)
	fmt.Fprintf(&b, "  renewals        %s %d, %s %d, tickets %d\n", messages.SourceStableToken, s.renewed[messages.SourceStableToken],
		messages.SourceToken, s.renewed[messages.SourceToken], s.renewed[messages.SourceGetTicket])
	fmt.Fprintf(&b, "  resolves        %d answered, %d refused (the demo's own)\n", s.resolves, s.refusals)
	fmt.Fprintf(&b, "  conflicts       %d made, %d noticed", s.kills, s.conflicts)
	if len(s.heals) > 0 {
		fmt.Fprintf(&b, ", healed within %s", span(slices.Max(s.heals)))
	}
	if s.failures > 0 {
		fmt.Fprintf(&b, "\n  failures        %d attempts to renew a credential", s.failures)
	}
	s.mu.Unlock()
	s.end(b.String() + "\n")
}

// upstream are the calls at each endpoint, with those that were refused.
func upstream(snapshot wechattest.Snapshot) []string {
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
