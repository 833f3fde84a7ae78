//go:build unix

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// checkCalls compares the calls that WeChat received with what explains them, and prints the summary.
func (st *stack) checkCalls(took time.Duration) {
	c := st.checker
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := st.wechat.Snapshot()
	total, byLives, byFaults, byReplaced, left := 0, 0, 0, 0, 0
	for _, a := range c.accounts {
		for endpoint, of := range calls.Accounts[a.AppID] {
			// The shortest time between two scheduled calls of the policy of worker.
			shortest, credentials := time.Duration(0), 1
			switch endpoint {
			case "token":
				shortest = tokenLife - renewAhead - renewAhead/4
			case "stable_token":
				shortest = tokenLife - overlap
			case "getticket":
				shortest, credentials = tokenLife/3-tokenLife/30, len(a.Tickets)
			default:
				continue
			}
			lives := credentials * (1 + int(took/shortest))
			if endpoint == "getticket" { // one more call when the life of a ticket ends
				lives += credentials * (1 + int(took/tokenLife))
			}
			// A fault costs the call that it hits. WeChat refuses a call with a wrong secret, or a call for a
			// ticket with a dead token.
			faults, refused := of.Faults, 0
			for errcode, n := range of.Errcodes {
				if errcode != 0 {
					refused += n
				}
			}
			faults = max(faults, refused)
			replaced := 0
			if endpoint != "getticket" {
				replaced = 2 * len(c.replaced[a.AppID]) // a call in normal mode, and one in forced mode
			}
			if a.wrongSecret {
				// One attempt, one more after each loss of the ledger, and one after a fault that hid the refusal.
				lives = 1 + c.ledgerLosses()
				if of.Calls > lives+of.Faults {
					c.failLocked("%s has a wrong secret, and the fleet called WeChat for it %d times in %s",
						a.AppID, of.Calls, took)
				}
			}
			total, byLives, byFaults = total+of.Calls, byLives+min(lives, of.Calls), byFaults+faults
			byReplaced += replaced
			if over := of.Calls - lives - faults - replaced; over > 0 {
				left += over
				c.printLocked("%s: %d calls of %s, %d explained by lives, %d by faults, %d by replaced tokens",
					a.AppID, of.Calls, endpoint, lives, faults, replaced)
			}
		}
	}
	disruptions := 0
	for _, d := range c.disruptions {
		if !d.upstream && !d.unavailable {
			disruptions++
		}
	}
	c.printLocked("%d calls of WeChat for credentials: %d explained by lives, up to %d by faults, "+
		"up to %d by replaced tokens, %d not explained, with %d disruptions",
		total, byLives, byFaults, byReplaced, left, disruptions)
	if left > disruptions {
		c.failLocked("%d calls of WeChat are not explained", left)
	}
	c.printSummary()
}

// ledgerLosses returns how often the ledger lost something.
func (c *checker) ledgerLosses() (n int) {
	for _, d := range c.disruptions {
		if d.ledgerLost {
			n++
		}
	}
	return n
}

func (c *checker) printSummary() {
	f := c.figures
	if f.late > f.samples/10 {
		c.failLocked("%d of %d samples came too late to be checked", f.late, f.samples)
	}
	for _, d := range c.disruptions {
		if d.unavailable {
			f.jetStreamOutage += d.to.Sub(d.from)
		}
	}
	c.printLocked("JetStream did not answer for %.1f s in all", f.jetStreamOutage.Seconds())
	c.printLocked("%d disruptions and faults; %d samples checked, %d came too late",
		f.disruptions, f.samples-f.late, f.late)
	for _, subject := range []string{"wechat.code.resolve", "wechat.credential.get"} {
		var parts []string
		for symbol, n := range f.answers[subject] {
			parts = append(parts, fmt.Sprintf("%s %d", symbol, n))
		}
		slices.Sort(parts)
		c.printLocked("%s: %s", subject, strings.Join(parts, ", "))
	}
	c.printLocked("%d requests had more than one attempt; the slowest took %s", f.retried, f.slowest)
	c.printLocked("consumers held a refused value: %s", spread(f.refused))
	c.printLocked("of these, after a second mint of the fleet: %s", spread(f.reminted))
	c.printLocked("consumers had no value: %s, %d of them explained", spread(f.gaps), f.explainedGaps)
}

func spread(ds []time.Duration) string {
	if len(ds) == 0 {
		return "never"
	}
	slices.Sort(ds)
	median, longest := ds[len(ds)/2], ds[len(ds)-1]
	return fmt.Sprintf("%d times, median %.2f s, longest %.2f s", len(ds), median.Seconds(), longest.Seconds())
}
