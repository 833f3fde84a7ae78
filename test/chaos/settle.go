package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// rest waits until the house has come to rest after the last fault: everything is fresh in every consumer, and no
// process has grown.
func (h *house) rest(ctx context.Context) {
	h.judge.say("no more faults: everything must become fresh again")
	if err := await(ctx, "rest", 90*time.Second, func(context.Context) error { return h.judge.complete(h.consumers) }); err != nil {
		h.judge.oops(err.Error())
	}
	// A worker that has just started is the measure of the others; they may keep goroutines and connections for the
	// requests they had.
	newest := h.workers[0]
	if err := newest.end(syscall.SIGTERM, 30*time.Second); err != nil {
		h.judge.oops(err.Error())
	}
	if err := newest.start(h.judge.oops); err != nil {
		h.judge.oops(err.Error())
		return
	}
	if err := await(ctx, "a ready worker", 30*time.Second, func(ctx context.Context) error { return ready(ctx, newest) }); err != nil {
		h.judge.oops(err.Error())
		return
	}
	var sizes []size
	err := await(ctx, "a fleet of equals", time.Minute, func(ctx context.Context) error {
		sizes = nil
		for _, w := range h.workers {
			s, err := measure(ctx, w)
			if err != nil {
				return err
			}
			sizes = append(sizes, s)
		}
		for i, s := range sizes {
			if own := sizes[0]; s.goroutines > own.goroutines+100 || s.files > own.files+60 || s.bytes > own.bytes+100<<20 {
				return fmt.Errorf("%s has grown: %+v, and one that has just started %+v", h.workers[i].name, s, own)
			}
		}
		return nil
	})
	for i, s := range sizes {
		h.judge.say("%s: %d goroutines, %d files, %d MiB", h.workers[i].name, s.goroutines, s.files, s.bytes>>20)
	}
	if err != nil {
		h.judge.oops(err.Error())
	}
	h.judge.mu.Lock()
	defer h.judge.mu.Unlock()
	for _, c := range h.consumers {
		const most = 100
		if r := h.judge.seen[c.name]; r.Goroutines > most {
			h.judge.find("%s has %d goroutines", c.name, r.Goroutines)
		}
	}
}

// size is what a worker says of itself in its metrics.
type size struct{ goroutines, files, bytes int }

func ready(ctx context.Context, p *process) error {
	_, err := page(ctx, p, "/readyz")
	return err
}

func page(ctx context.Context, p *process, path string) (string, error) {
	url, err := p.page(time.Second)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := earClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s%s: %s", p.name, path, resp.Status)
	}
	return string(body), err
}

var metric = regexp.MustCompile(`(?m)^(go_goroutines|process_open_fds|process_resident_memory_bytes) (\S+)$`)

func measure(ctx context.Context, p *process) (size, error) {
	text, err := page(ctx, p, "/metrics")
	if err != nil {
		return size{}, err
	}
	values := map[string]int{}
	for _, g := range metric.FindAllStringSubmatch(text, -1) {
		v, err := strconv.ParseFloat(g[2], 64)
		if err != nil {
			return size{}, err
		}
		values[g[1]] = int(v)
	}
	if len(values) != 3 {
		return size{}, fmt.Errorf("%s: metrics %v", p.name, values)
	}
	return size{values["go_goroutines"], values["process_open_fds"], values["process_resident_memory_bytes"]}, nil
}

// ledgersLost is how often what the fleet remembers was lost. j.mu is held.
func (j *judge) ledgersLost() (n int) {
	for _, t := range j.troubles {
		if t.ledgerLost {
			n++
		}
	}
	return n
}

// settleAccounts compares the calls that WeChat got with what explains them.
func (h *house) settleAccounts(took time.Duration) {
	j := h.judge
	j.mu.Lock()
	defer j.mu.Unlock()
	calls := h.wechat.Snapshot()
	total, byLives, byFaults, byMoves, left := 0, 0, 0, 0, 0
	for _, a := range j.accounts {
		of := calls.Accounts[a.AppID]
		for endpoint, c := range of {
			// The shortest time between two scheduled calls: see worker/policy.go.
			shortest, each := time.Duration(0), 1
			switch endpoint {
			case "token":
				shortest = tokenLife - renewAhead - renewAhead/4
			case "stable_token":
				shortest = tokenLife - overlap
			case "getticket":
				shortest, each = tokenLife/3-tokenLife/30, len(a.Tickets)
			default:
				continue
			}
			lives := each * (1 + int(took/shortest))
			if endpoint == "getticket" { // and one more when a ticket's life is over
				lives += each * (1 + int(took/tokenLife))
			}
			// Each fault costs the call that it struck; each refusal is one of a wrong secret, or of a dead token for a ticket.
			faults, refused := c.Faults, 0
			for errcode, n := range c.Errcodes {
				if errcode != 0 {
					refused += n
				}
			}
			faults = max(faults, refused)
			moves := 0
			if endpoint != "getticket" {
				moves = 2 * len(j.moved[a.AppID]) // the normal mode, and the forced one
			}
			if a.wrongSecret {
				// One try, and one more for each time that the ledger was lost, and after a fault that hid the refusal.
				lives = 1 + j.ledgersLost()
				if c.Calls > lives+c.Faults {
					j.find("%s has a wrong secret, and was asked for %d times in %s", a.AppID, c.Calls, took)
				}
			}
			total, byLives, byFaults, byMoves = total+c.Calls, byLives+min(lives, c.Calls), byFaults+faults, byMoves+moves
			if over := c.Calls - lives - faults - moves; over > 0 {
				left += over
				j.sayLocked("%s: %d calls of %s, %d explained by lives, %d by faults, %d by moves", a.AppID, c.Calls, endpoint, lives, faults, moves)
			}
		}
	}
	disruptions := 0
	for _, t := range j.troubles {
		if !t.upstream && !t.deaf {
			disruptions++
		}
	}
	j.sayLocked("WeChat was asked %d times for credentials: %d explained by lives, up to %d by faults, up to %d by moved tokens, %d by none of these, with %d disruptions",
		total, byLives, byFaults, byMoves, left, disruptions)
	if left > disruptions {
		j.find("%d calls are explained by nothing", left)
	}
	f := j.figures
	if f.late > f.looks/10 {
		j.find("%d of %d sightings came too late to be judged", f.late, f.looks)
	}
	for _, t := range j.troubles {
		if t.deaf {
			f.deaf += t.to.Sub(t.from)
		}
	}
	j.sayLocked("JetStream did not answer for %.1f s in all", f.deaf.Seconds())
	j.sayLocked("%d disruptions and faults; %d sightings judged, %d came too late to be judged", f.troubls, f.looks-f.late, f.late)
	for _, subject := range []string{"wechat.code.resolve", "wechat.credential.get"} {
		var parts []string
		for symbol, n := range f.answers[subject] {
			parts = append(parts, fmt.Sprintf("%s %d", symbol, n))
		}
		slices.Sort(parts)
		j.sayLocked("%s: %s", subject, strings.Join(parts, ", "))
	}
	j.sayLocked("%d requests were asked more than once; the slowest took %s", f.again, f.slowest)
	j.sayLocked("of the holds, a second mint of the fleet explains: %s", spread(f.reminted))
	j.sayLocked("a refused token was held %s; without a value: %s, %d of them explained", spread(f.holds), spread(f.gaps), f.excusedGaps)
}

func spread(ds []time.Duration) string {
	if len(ds) == 0 {
		return "never"
	}
	slices.Sort(ds)
	return fmt.Sprintf("%d times, median %.2f s, longest %.2f s", len(ds), ds[len(ds)/2].Seconds(), ds[len(ds)-1].Seconds())
}
