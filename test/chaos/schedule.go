//go:build unix

package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// fault is something that happens to the stack for some time.
type fault struct {
	effect
	at, duration time.Duration
	name         string
	inject       func(context.Context, *stack) error
	heal         func(context.Context, *stack) error // nil: nothing is to be healed
	harmless     bool                                // it has no effect that explains a problem
}

// draw returns the schedule of a seed. The same arguments give the same schedule. At any time there is one fault
// of each sort, so that the run demands what the fleet promises to survive: one of three servers is lost, or the
// quorum for a while; some workers, never all of them; WeChat, for less time than the fleet renews ahead.
func draw(seed uint64, duration time.Duration, workers int, accounts []account) []fault {
	r := rand.New(rand.NewPCG(seed, 0xc4a05))
	d := &drawer{
		rand: r, duration: duration, workers: workers, accounts: accounts, replacedAt: make(map[string]time.Duration),
	}
	d.track(2*time.Second, 5*time.Second, d.server)
	d.track(time.Second, 5*time.Second, d.worker)
	d.track(2*time.Second, 7*time.Second, d.upstream)
	d.track(8*time.Second, 20*time.Second, d.replacement)
	d.track(15*time.Second, 40*time.Second, d.loss)
	d.track(10*time.Second, 25*time.Second, d.consumer)
	slices.SortStableFunc(d.faults, func(a, b fault) int { return cmp.Compare(a.at, b.at) })
	return d.faults
}

type drawer struct {
	rand       *rand.Rand
	duration   time.Duration
	workers    int
	accounts   []account
	replacedAt map[string]time.Duration
	faults     []fault
}

// track draws faults one after another, with pauses between them. next returns a fault without inject if none is
// possible at that time.
func (d *drawer) track(least, most time.Duration, next func(at time.Duration) fault) {
	for at := d.between(least, most); at < d.duration; {
		f := next(at)
		if f.inject == nil {
			at += least
			continue
		}
		f.at, f.duration = at, min(f.duration, d.duration-at)
		d.faults = append(d.faults, f)
		at += f.duration + d.between(least, most)
	}
}

func (d *drawer) between(least, most time.Duration) time.Duration {
	return least + time.Duration(d.rand.Int64N(int64(most-least)))
}

func (d *drawer) seconds(least, most float64) time.Duration {
	return d.between(time.Duration(least*float64(time.Second)), time.Duration(most*float64(time.Second)))
}

// server draws a fault of NATS.
func (d *drawer) server(time.Duration) fault {
	i := d.rand.IntN(servers)
	name := fmt.Sprintf("nats%d", i+1)
	end := func(s syscall.Signal) func(context.Context, *stack) error {
		return func(_ context.Context, st *stack) error { return st.nats[i].end(s) }
	}
	start := func(_ context.Context, st *stack) error { return st.nats[i].start(st.checker.fail) }
	disconnect := func(what string, s linkState, ofClients, ofServers bool, duration time.Duration) fault {
		return fault{
			duration: duration, name: fmt.Sprintf("%s: %s %s", name, what, s),
			inject: func(_ context.Context, st *stack) error { st.setLinks(i, s, ofClients, ofServers); return nil },
			heal:   func(_ context.Context, st *stack) error { st.setLinks(i, open, ofClients, ofServers); return nil },
		}
	}
	state := []linkState{cut, silent}[d.rand.IntN(2)]
	switch d.rand.IntN(10) {
	case 0, 1:
		return fault{duration: d.seconds(0.5, 8), name: name + ": kill -9", inject: end(syscall.SIGKILL), heal: start}
	case 2:
		return fault{duration: d.seconds(0.5, 5), name: name + ": SIGTERM", inject: end(syscall.SIGTERM), heal: start}
	case 3:
		return fault{
			duration: d.seconds(2, 8), name: name + ": SIGSTOP",
			inject: func(_ context.Context, st *stack) error { st.nats[i].freeze(); return nil },
			heal:   func(_ context.Context, st *stack) error { st.nats[i].thaw(); return nil },
		}
	case 4:
		return disconnect("links to clients", state, true, false, d.seconds(1, 6))
	case 5:
		return disconnect("routes", state, false, true, d.seconds(1, 6))
	case 6, 7:
		return disconnect("links to clients and routes", state, true, true, d.seconds(1, 8))
	case 8:
		stream := []string{recordStream, ledgerStream}[d.rand.IntN(2)]
		return fault{name: stream + ": the leader steps down", inject: func(ctx context.Context, st *stack) error {
			_, err := st.nc.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil)
			return err
		}}
	default:
		k := (i + 1) % servers
		return fault{
			duration: d.seconds(1, 5), name: fmt.Sprintf("no quorum: nats%d and nats%d: kill -9", i+1, k+1),
			inject: func(_ context.Context, st *stack) error {
				if err := st.nats[i].end(syscall.SIGKILL); err != nil {
					return err
				}
				return st.nats[k].end(syscall.SIGKILL)
			},
			heal: func(_ context.Context, st *stack) error {
				if err := st.nats[i].start(st.checker.fail); err != nil {
					return err
				}
				return st.nats[k].start(st.checker.fail)
			},
		}
	}
}

// worker draws a fault of one worker, or of two at once.
func (d *drawer) worker(time.Duration) fault {
	hit := d.rand.Perm(d.workers)[:1+d.rand.IntN(2)]
	name := ""
	for _, i := range hit {
		name += fmt.Sprintf("worker%d ", i+1)
	}
	each := func(do func(*stack, *process) error) func(context.Context, *stack) error {
		return func(_ context.Context, st *stack) error {
			for _, i := range hit {
				if err := do(st, st.workers[i]); err != nil {
					return err
				}
			}
			return nil
		}
	}
	end := func(s syscall.Signal) func(context.Context, *stack) error {
		return each(func(_ *stack, p *process) error { return p.end(s) })
	}
	start := each(func(st *stack, p *process) error { return p.start(st.checker.fail) })
	switch d.rand.IntN(5) {
	case 0, 1:
		return fault{duration: d.seconds(0, 6), name: name + "kill -9", inject: end(syscall.SIGKILL), heal: start}
	case 2, 3: // shorter and longer than a lease, which has 4 s
		return fault{
			duration: d.seconds(1, 10), name: name + "SIGSTOP",
			inject: each(func(_ *stack, p *process) error { p.freeze(); return nil }),
			heal:   each(func(_ *stack, p *process) error { p.thaw(); return nil }),
		}
	default:
		return fault{duration: d.seconds(0, 4), name: name + "SIGTERM", inject: end(syscall.SIGTERM), heal: start}
	}
}

// upstream draws a fault of WeChat: it fails, hangs or gives wrong answers.
func (d *drawer) upstream(time.Duration) fault {
	one := d.accounts[d.rand.IntN(len(d.accounts)-1)] // never the account with the wrong secret
	f := wechattest.Fault{}
	if d.rand.IntN(2) == 0 {
		f.AppID = one.AppID
	}
	endpoints := []string{"", "", "token", "stable_token", "getticket", "tickettocode", "get_api_domain_ip"}
	f.Endpoint = endpoints[d.rand.IntN(len(endpoints))]
	var name string
	switch d.rand.IntN(8) {
	case 0:
		f.Errcode, name = -1, "answers -1"
	case 1:
		f.Status, name = 502, "answers 502"
	case 2:
		f.Drop, name = true, "drops connections"
	case 3:
		f.Hang, name = true, "hangs"
	case 4:
		f.Delay, name = d.seconds(0.3, 1.5), "is late"
	case 5:
		f.Errcode, f.Endpoint = 40001, []string{"tickettocode", "getticket"}[d.rand.IntN(2)]
		name = "refuses valid tokens"
	case 6:
		bodies := []string{
			"empty", "truncated", "cut", "html", "binary", "gzip",
			"zero_life", "no_value", "empty_value", "long_value", "unprintable_value",
		}
		f.Body = bodies[d.rand.IntN(len(bodies))]
		name = "spoils answers (" + f.Body + ")"
		if slices.Contains(bodies[6:], f.Body) && !slices.Contains(endpoints[2:5], f.Endpoint) {
			f.Endpoint = endpoints[2+d.rand.IntN(3)] // only the answers of these have a life or a value to spoil
		}
	default:
		// WeChat issues a new token and the answer is lost: only once, because a second time would kill every
		// token that the fleet knows.
		f = wechattest.Fault{AppID: one.AppID, Endpoint: one.endpoint(), Times: 1, After: true, Drop: true}
		name = "loses the answer with a new token"
	}
	target := f.Endpoint
	if f.AppID != "" {
		target += " of " + f.AppID
	}
	duration := d.seconds(1, 6)
	if f.Times == 1 {
		duration = d.seconds(15, 30) // until it hits a refresh
	}
	return fault{
		effect: effect{
			appid: f.AppID, upstream: true,
			renewal: !f.After && f.Endpoint != "tickettocode" && f.Endpoint != "get_api_domain_ip",
		},
		duration: duration, name: fmt.Sprintf("WeChat %s: %s", name, target),
		inject: func(_ context.Context, st *stack) error {
			st.wechat.Inject(f)
			if f.After {
				st.checker.tokenReplaced(f.AppID)
			}
			return nil
		},
		heal: func(_ context.Context, st *stack) error { st.wechat.ClearFaults(); return nil },
	}
}

// replacement draws an account whose token another system replaces: once, twice, or five times within a minute, each
// account rarely. Of stable_token, WeChat ignores the second call with force_refresh within half a minute.
func (d *drawer) replacement(at time.Duration) fault {
	a := d.accounts[d.rand.IntN(len(d.accounts)-1)]
	if last, ok := d.replacedAt[a.AppID]; ok && at-last < 2*time.Minute {
		return fault{}
	}
	times, least, most := []int{1, 2, 5}[d.rand.IntN(3)], time.Second, 12*time.Second
	if a.endpoint() == "stable_token" {
		times, least, most = min(times, 2), 31*time.Second, 40*time.Second
	}
	first, last := d.replace(a), at
	for range times - 1 {
		again := d.replace(a)
		if last += d.between(least, most); last < d.duration {
			again.at = last
			d.faults = append(d.faults, again)
		}
	}
	d.replacedAt[a.AppID] = last
	return first
}

// replace is the replacement of a token by another system.
func (d *drawer) replace(a account) fault {
	return fault{
		name: "another system replaces the token: " + a.endpoint() + " of " + a.AppID, harmless: true,
		inject: func(_ context.Context, st *stack) error {
			st.checker.tokenReplaced(a.AppID)
			_, err := st.wechat.ForeignRefresh(a.AppID, a.endpoint())
			return err
		},
	}
}

// loss draws what a bucket loses: one key (as `nats kv purge` deletes it), every message, or the stream itself.
func (d *drawer) loss(time.Duration) fault {
	a := d.accounts[d.rand.IntN(len(d.accounts)-1)]
	kinds := a.kinds()
	key := a.AppID + "." + kinds[d.rand.IntN(len(kinds))]
	record, ledger := effect{lost: true}, effect{lost: true, ledgerLost: true}
	lose := func(bucket string, e effect) fault {
		name := fmt.Sprintf("lost: %s of %s", key, bucket)
		return fault{effect: e, name: name, inject: func(ctx context.Context, st *stack) error {
			b, err := st.js.KeyValue(ctx, bucket)
			if err != nil {
				return err
			}
			return b.Purge(ctx, key)
		}}
	}
	purge := func(stream string, e effect) fault {
		name := "lost: everything of " + stream
		return fault{effect: e, name: name, inject: func(ctx context.Context, st *stack) error {
			s, err := st.js.Stream(ctx, stream)
			if err != nil {
				return err
			}
			return s.Purge(ctx)
		}}
	}
	remove := func(stream string, e effect) fault {
		return fault{effect: e, name: "deleted: " + stream, inject: func(ctx context.Context, st *stack) error {
			return st.js.DeleteStream(ctx, stream)
		}}
	}
	switch d.rand.IntN(7) {
	case 0, 1:
		return lose("wechat", record)
	case 2:
		return lose("wechat_ledger", ledger)
	case 3:
		return purge(recordStream, record)
	case 4:
		return purge(ledgerStream, ledger)
	case 5:
		return remove(recordStream, record)
	default:
		return remove(ledgerStream, ledger)
	}
}

// consumer draws a fault of a consumer.
func (d *drawer) consumer(time.Duration) fault {
	i := d.rand.IntN(consumers)
	p := func(st *stack) *process { return st.consumers[i] }
	f := fault{duration: d.seconds(0, 10), harmless: true}
	if d.rand.IntN(2) == 0 {
		f.name = fmt.Sprintf("consumer %d: kill -9", i+1)
		f.inject = func(_ context.Context, st *stack) error {
			err := p(st).end(syscall.SIGKILL)
			st.checker.consumerKilled(p(st).name)
			return err
		}
		f.heal = func(_ context.Context, st *stack) error { return p(st).start(st.checker.fail) }
		return f
	}
	f.name = fmt.Sprintf("consumer %d: SIGSTOP", i+1)
	f.inject = func(_ context.Context, st *stack) error { p(st).freeze(); return nil }
	f.heal = func(_ context.Context, st *stack) error { p(st).thaw(); return nil }
	return f
}
