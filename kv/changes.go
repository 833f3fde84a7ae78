package kv

import (
	"context"
	"fmt"
	"iter"

	"github.com/wxkeeper/wxkeeper/messages"
)

// Wait returns the current credential as soon as there is one, or ctx's error.
func (r *Reader) Wait(ctx context.Context, appid string, kind messages.Kind) (messages.Credential, error) {
	return r.await(ctx, appid, kind, func(messages.Credential) bool { return true })
}

// WaitNewer returns the current credential as soon as its generation is above generation, or ctx's error.
func (r *Reader) WaitNewer(ctx context.Context, appid string, kind messages.Kind, generation uint64) (messages.Credential, error) {
	return r.await(ctx, appid, kind, func(c messages.Credential) bool { return c.Generation > generation })
}

// await returns the current credential as soon as it is the one that is waited for, or ctx's error.
func (r *Reader) await(ctx context.Context, appid string, kind messages.Kind, is func(messages.Credential) bool) (messages.Credential, error) {
	l := r.listen(appid)
	defer r.leave(l, appid)
	for {
		if c, err := r.Get(appid, kind); err == nil && is(c) {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return messages.Credential{}, fmt.Errorf("kv: waiting for %s: %w", messages.Key(appid, kind), ctx.Err())
		case <-l.wake:
		}
		r.take(l)
	}
}

// Changes yields the credentials of the accounts (none named: of all that the Reader follows) that are valid now, and
// then each that takes another's place, until ctx ends or the loop is left:
//
//	for c := range reader.Changes(ctx) {
//		write(c)
//	}
//
// Between two of them it blocks. A loop that is slow delays nobody, the Reader least of all: what changes meanwhile waits
// for it, of each credential the newest alone, so it need not be bounded further. It does not tell that a credential
// has expired, which only the clock does: [Reader.Get] says so. Safe for concurrent use.
func (r *Reader) Changes(ctx context.Context, appids ...string) iter.Seq[messages.Credential] {
	return func(yield func(messages.Credential) bool) {
		l := r.listen(appids...)
		defer r.leave(l, appids...)
		type told struct {
			generation uint64
			value      string
			ends       int64
		}
		last := map[name]told{}
		todo := r.known(appids)
		for ctx.Err() == nil {
			for _, n := range todo {
				c, err := r.Get(n.appid, n.kind)
				if err != nil {
					continue
				}
				if now := (told{c.Generation, c.Value, c.ExpiresAt.UnixNano()}); now != last[n] {
					last[n] = now
					if ctx.Err() != nil || !yield(c) {
						return
					}
				}
			}
			select {
			case <-ctx.Done():
			case <-l.wake:
			}
			todo = r.take(l)
		}
	}
}

// known are the names of all credentials of the accounts (none: of all accounts), seen or not.
func (r *Reader) known(appids []string) []name {
	var names []name
	add := func(appid any) {
		for _, k := range messages.Kinds {
			names = append(names, name{appid.(string), k})
		}
	}
	if len(appids) == 0 {
		r.slots.Range(func(appid, _ any) bool { add(appid); return true })
	}
	for _, id := range appids {
		add(id)
	}
	return names
}

// name names a credential.
type name struct {
	appid string
	kind  messages.Kind
}

// listener hears of the credentials that change: it has the name of each, once, until it looks.
type listener struct {
	wake    chan struct{} // has an element while pending has
	pending map[name]struct{}
}

// listeners are by account; those of "" hear of all accounts.
type listeners map[string]map[*listener]struct{}

// tell is called with r.mu held.
func (ls listeners) tell(appid string, kind messages.Kind) {
	for _, group := range []map[*listener]struct{}{ls[appid], ls[""]} {
		for l := range group {
			l.pending[name{appid, kind}] = struct{}{}
			select {
			case l.wake <- struct{}{}:
			default:
			}
		}
	}
}

// listen makes a listener for some accounts; none: all.
func (r *Reader) listen(appids ...string) *listener {
	l := &listener{wake: make(chan struct{}, 1), pending: map[name]struct{}{}}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range orAll(appids) {
		if r.listeners[id] == nil {
			r.listeners[id] = map[*listener]struct{}{}
		}
		r.listeners[id][l] = struct{}{}
	}
	return l
}

func (r *Reader) leave(l *listener, appids ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range orAll(appids) {
		delete(r.listeners[id], l)
		if len(r.listeners[id]) == 0 {
			delete(r.listeners, id)
		}
	}
}

// take returns what has changed since the last time.
func (r *Reader) take(l *listener) []name {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]name, 0, len(l.pending))
	for n := range l.pending {
		names = append(names, n)
	}
	clear(l.pending)
	return names
}

func orAll(appids []string) []string {
	if len(appids) == 0 {
		return []string{""}
	}
	return appids
}
