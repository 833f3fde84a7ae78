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

// fault is something that happens to the house, and passes.
type fault struct {
	at, lasts time.Duration
	name      string
	begin     func(context.Context, *house) error
	heal      func(context.Context, *house) error // nil: nothing is to be healed
	// The trouble that it makes for the judge: of WeChat, of everything else, or none.
	appid    string
	upstream bool
	renewal  bool // of WeChat, and of an interface that renewing needs
	lost     bool
	deaf     bool
	harmless bool
}

// draw makes the schedule of a seed. The same arguments give the same schedule. Of each kind of trouble there is one at
// a time, so that what the design promises to survive is what is asked: one server of three lost, or for a while no
// quorum; some workers, never all of them; WeChat failing for less time than the fleet renews ahead.
func draw(seed uint64, lasts time.Duration, workers int, accounts []account) []fault {
	r := rand.New(rand.NewPCG(seed, 0xc4a05))
	d := &drawer{rand: r, lasts: lasts, workers: workers, accounts: accounts, movedAt: make(map[string]time.Duration)}
	d.track(2*time.Second, 5*time.Second, d.server)
	d.track(time.Second, 5*time.Second, d.worker)
	d.track(2*time.Second, 7*time.Second, d.upstream)
	d.track(8*time.Second, 20*time.Second, d.foreign)
	d.track(15*time.Second, 40*time.Second, d.loss)
	d.track(10*time.Second, 25*time.Second, d.consumer)
	slices.SortStableFunc(d.faults, func(a, b fault) int { return cmp.Compare(a.at, b.at) })
	return d.faults
}

type drawer struct {
	rand     *rand.Rand
	lasts    time.Duration
	workers  int
	accounts []account
	movedAt  map[string]time.Duration
	faults   []fault
}

// track draws one fault after another, with pauses between them.
func (d *drawer) track(least, most time.Duration, next func(at time.Duration) fault) {
	for at := d.between(least, most); at < d.lasts; {
		f := next(at)
		if f.begin == nil {
			at += least
			continue
		}
		f.at, f.lasts = at, min(f.lasts, d.lasts-at)
		d.faults = append(d.faults, f)
		at += f.lasts + d.between(least, most)
	}
}

func (d *drawer) between(least, most time.Duration) time.Duration {
	return least + time.Duration(d.rand.Int64N(int64(most-least)))
}

func (d *drawer) seconds(least, most float64) time.Duration {
	return d.between(time.Duration(least*float64(time.Second)), time.Duration(most*float64(time.Second)))
}

// server draws what happens to NATS.
func (d *drawer) server(time.Duration) fault {
	i := d.rand.IntN(servers)
	name := fmt.Sprintf("nats%d", i+1)
	ends := func(s syscall.Signal) func(context.Context, *house) error {
		return func(_ context.Context, h *house) error { return h.nats[i].end(s, 30*time.Second) }
	}
	starts := func(_ context.Context, h *house) error { return h.nats[i].start(h.judge.oops) }
	cutOff := func(what string, n network, ofClients, ofServers bool, lasts time.Duration) fault {
		return fault{
			lasts: lasts, name: fmt.Sprintf("%s: %s %s", name, what, n),
			begin: func(_ context.Context, h *house) error { h.set(i, n, ofClients, ofServers); return nil },
			heal:  func(_ context.Context, h *house) error { h.set(i, open, ofClients, ofServers); return nil },
		}
	}
	way := []network{cut, silent}[d.rand.IntN(2)]
	switch d.rand.IntN(10) {
	case 0, 1:
		return fault{lasts: d.seconds(0.5, 8), name: name + ": kill -9", begin: ends(syscall.SIGKILL), heal: starts}
	case 2:
		return fault{lasts: d.seconds(0.5, 5), name: name + ": SIGTERM", begin: ends(syscall.SIGTERM), heal: starts}
	case 3:
		return fault{
			lasts: d.seconds(2, 8), name: name + ": SIGSTOP",
			begin: func(_ context.Context, h *house) error { h.nats[i].freeze(); return nil },
			heal:  func(_ context.Context, h *house) error { h.nats[i].thaw(); return nil },
		}
	case 4:
		return cutOff("its clients", way, true, false, d.seconds(1, 6))
	case 5:
		return cutOff("its routes", way, false, true, d.seconds(1, 6))
	case 6, 7:
		return cutOff("all its ways", way, true, true, d.seconds(1, 8))
	case 8:
		stream := []string{"KV_wechat", "KV_wechat_ledger"}[d.rand.IntN(2)]
		return fault{name: stream + ": the leader steps down", begin: func(ctx context.Context, h *house) error {
			_, err := h.nc.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil)
			return err
		}}
	default:
		k := (i + 1) % servers
		return fault{
			lasts: d.seconds(1, 5), name: fmt.Sprintf("no quorum: nats%d and nats%d: kill -9", i+1, k+1),
			begin: func(_ context.Context, h *house) error {
				if err := h.nats[i].end(syscall.SIGKILL, time.Second); err != nil {
					return err
				}
				return h.nats[k].end(syscall.SIGKILL, time.Second)
			},
			heal: func(_ context.Context, h *house) error {
				if err := h.nats[i].start(h.judge.oops); err != nil {
					return err
				}
				return h.nats[k].start(h.judge.oops)
			},
		}
	}
}

// worker draws what happens to workers: to one, or to two at once.
func (d *drawer) worker(time.Duration) fault {
	who := d.rand.Perm(d.workers)[:1+d.rand.IntN(2)]
	name := ""
	for _, i := range who {
		name += fmt.Sprintf("worker%d ", i+1)
	}
	each := func(do func(*house, *process) error) func(context.Context, *house) error {
		return func(_ context.Context, h *house) error {
			for _, i := range who {
				if err := do(h, h.workers[i]); err != nil {
					return err
				}
			}
			return nil
		}
	}
	starts := each(func(h *house, p *process) error { return p.start(h.judge.oops) })
	switch d.rand.IntN(5) {
	case 0, 1:
		return fault{lasts: d.seconds(0, 6), name: name + "kill -9", heal: starts, begin: each(func(_ *house, p *process) error { return p.end(syscall.SIGKILL, time.Second) })}
	case 2, 3: // the lease lasts 4 s
		return fault{
			lasts: d.seconds(1, 10), name: name + "SIGSTOP", begin: each(func(_ *house, p *process) error { p.freeze(); return nil }),
			heal: each(func(_ *house, p *process) error { p.thaw(); return nil }),
		}
	default:
		return fault{lasts: d.seconds(0, 4), name: name + "SIGTERM", heal: starts, begin: each(func(_ *house, p *process) error { return p.end(syscall.SIGTERM, 30*time.Second) })}
	}
}

// upstream draws how WeChat fails, hangs and lies.
func (d *drawer) upstream(time.Duration) fault {
	one := d.accounts[d.rand.IntN(len(d.accounts)-1)] // not the one with the wrong secret
	f := wechattest.Fault{}
	if d.rand.IntN(2) == 0 {
		f.AppID = one.AppID
	}
	endpoints := []string{"", "", "token", "stable_token", "getticket", "tickettocode", "get_api_domain_ip"}
	f.Endpoint = endpoints[d.rand.IntN(len(endpoints))]
	var name string
	switch d.rand.IntN(8) {
	case 0:
		f.Errcode, name = -1, "says -1"
	case 1:
		f.Status, name = 502, "says 502"
	case 2:
		f.Drop, name = true, "drops connections"
	case 3:
		f.Hang, name = true, "hangs"
	case 4:
		f.Delay, name = d.seconds(0.3, 1.5), "is late"
	case 5:
		// It lies about a token that is good.
		f.Errcode, f.Endpoint, name = 40001, []string{"tickettocode", "getticket"}[d.rand.IntN(2)], "refuses good tokens"
	case 6:
		bodies := []string{"empty", "truncated", "cut", "html", "binary", "wrong_type", "zero_life", "no_value", "empty_value", "long_value", "unprintable_value"}
		f.Body = bodies[d.rand.IntN(len(bodies))]
		name = "spoils answers (" + f.Body + ")"
		if slices.Contains(bodies[6:], f.Body) && !slices.Contains(endpoints[2:5], f.Endpoint) {
			f.Endpoint = endpoints[2+d.rand.IntN(3)] // where the value is one that can be told to be wrong
		}
	default:
		// A new token is issued, and the answer is lost: once, because after a second one nobody has a good token.
		f = wechattest.Fault{AppID: one.AppID, Endpoint: one.endpoint(), Times: 1, After: true, Drop: true}
		name = "loses the answer with a new token"
	}
	where := f.Endpoint
	if f.AppID != "" {
		where += " of " + f.AppID
	}
	lasts := d.seconds(1, 6)
	if f.Times == 1 {
		lasts = d.seconds(15, 30) // until a refresh falls into it
	}
	return fault{
		lasts: lasts, name: fmt.Sprintf("WeChat %s: %s", name, where), appid: f.AppID, upstream: true,
		renewal: !f.After && f.Endpoint != "tickettocode" && f.Endpoint != "get_api_domain_ip",
		begin: func(_ context.Context, h *house) error {
			h.wechat.Inject(f)
			if f.After {
				h.judge.isMoved(f.AppID)
			}
			return nil
		},
		heal: func(_ context.Context, h *house) error { h.wechat.ClearFaults(); return nil },
	}
}

// foreign draws another system that takes a token of an account, of each account rarely.
func (d *drawer) foreign(at time.Duration) fault {
	a := d.accounts[d.rand.IntN(len(d.accounts)-1)]
	if last, ok := d.movedAt[a.AppID]; ok && at-last < 2*time.Minute {
		return fault{}
	}
	d.movedAt[a.AppID] = at
	return fault{name: "another system takes a token: " + a.endpoint() + " of " + a.AppID, harmless: true, begin: func(_ context.Context, h *house) error {
		h.judge.isMoved(a.AppID)
		_, err := h.wechat.ForeignRefresh(a.AppID, a.endpoint())
		return err
	}}
}

// loss draws what the buckets lose.
func (d *drawer) loss(time.Duration) fault {
	a := d.accounts[d.rand.IntN(len(d.accounts)-1)]
	kinds := a.kinds()
	key := a.AppID + "." + kinds[d.rand.IntN(len(kinds))]
	lose := func(bucket string) fault { // as `nats kv purge` does
		return fault{name: fmt.Sprintf("lost: %s of %s", key, bucket), lost: true, begin: func(ctx context.Context, h *house) error {
			b, err := h.js.KeyValue(ctx, bucket)
			if err != nil {
				return err
			}
			return b.Purge(ctx, key)
		}}
	}
	purge := func(stream string) fault {
		return fault{name: "lost: everything of " + stream, lost: true, begin: func(ctx context.Context, h *house) error {
			s, err := h.js.Stream(ctx, stream)
			if err != nil {
				return err
			}
			return s.Purge(ctx)
		}}
	}
	remove := func(stream string) fault {
		return fault{name: "deleted: " + stream, lost: true, begin: func(ctx context.Context, h *house) error { return h.js.DeleteStream(ctx, stream) }}
	}
	switch d.rand.IntN(7) {
	case 0, 1:
		return lose("wechat")
	case 2:
		return lose("wechat_ledger")
	case 3:
		return purge("KV_wechat")
	case 4:
		return purge("KV_wechat_ledger")
	case 5:
		return remove("KV_wechat")
	default:
		return remove("KV_wechat_ledger")
	}
}

// consumer draws what happens to those who use credentials.
func (d *drawer) consumer(time.Duration) fault {
	i := d.rand.IntN(consumers)
	p := func(h *house) *process { return h.consumers[i] }
	f := fault{lasts: d.seconds(0, 10), harmless: true}
	if d.rand.IntN(2) == 0 {
		f.name = fmt.Sprintf("consumer %d: kill -9", i+1)
		f.begin = func(_ context.Context, h *house) error {
			err := p(h).end(syscall.SIGKILL, time.Second)
			h.judge.gone(p(h).name)
			return err
		}
		f.heal = func(_ context.Context, h *house) error { return p(h).start(h.judge.oops) }
		return f
	}
	f.name = fmt.Sprintf("consumer %d: SIGSTOP", i+1)
	f.begin = func(_ context.Context, h *house) error { p(h).freeze(); return nil }
	f.heal = func(_ context.Context, h *house) error { p(h).thaw(); return nil }
	return f
}
