package kv

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// Wait returns the current credential as soon as there is one. It returns ctx's error if ctx ends before, and
// at once an [ErrNotFound] that says why if there can be no credential: the kind is unknown, the AppID is
// invalid, or the Reader does not follow the account.
func (r *Reader) Wait(ctx context.Context, appid string, kind messages.Kind) (messages.Credential, error) {
	return r.await(ctx, appid, kind, func(messages.Credential) bool { return true })
}

// WaitNewer returns the current credential as soon as its generation is above generation; errors as of
// [Reader.Wait].
func (r *Reader) WaitNewer(
	ctx context.Context, appid string, kind messages.Kind, generation uint64,
) (messages.Credential, error) {
	return r.await(ctx, appid, kind, func(c messages.Credential) bool { return c.Generation > generation })
}

// await returns the current credential as soon as it satisfies is; errors as of [Reader.Wait].
func (r *Reader) await(
	ctx context.Context, appid string, kind messages.Kind, is func(messages.Credential) bool,
) (messages.Credential, error) {
	if err := r.check(appid, kind); err != nil {
		return messages.Credential{}, fmt.Errorf("kv: %w", err)
	}
	l := r.listen(appid)
	defer r.leave(l, appid)
	for {
		if c, err := r.Get(appid, kind); err == nil && is(c) {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return messages.Credential{}, fmt.Errorf("kv: wait for %s: %w", messages.Key(appid, kind), ctx.Err())
		case <-l.wake:
		}
		r.take(l)
	}
}

// Changes yields the credentials of some accounts that are valid now, and then each credential that replaces
// another, until ctx ends or the loop is left:
//
//	for c := range reader.Changes(ctx) {
//		write(c)
//	}
//
// Without AppIDs it yields the credentials of all accounts that the Reader follows. Accounts of which there
// can be no credential (an invalid AppID, an account that the Reader does not follow) are ignored; if all
// given accounts are, the loop ends at once.
//
// Changes blocks between two credentials. A slow loop delays neither the Reader nor anything else: pending
// changes are coalesced, only the newest per credential is kept. An expiry is not a change; [Reader.Get]
// returns it.
func (r *Reader) Changes(ctx context.Context, appids ...string) iter.Seq[messages.Credential] {
	return func(yield func(messages.Credential) bool) {
		appids, all := r.followed(appids), len(appids) == 0
		if len(appids) == 0 && !all {
			return
		}
		l := r.listen(appids...)
		defer r.leave(l, appids...)
		type version struct {
			generation uint64
			value      string
			ends       int64
		}
		last := map[bucket.Name]version{}
		todo := r.names(appids)
		for ctx.Err() == nil {
			for _, n := range todo {
				c, err := r.Get(n.AppID, n.Kind)
				if err != nil {
					continue
				}
				if now := (version{c.Generation, c.Value, c.ExpiresAt.UnixNano()}); now != last[n] {
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

// followed returns the accounts of the list of which there can be a credential.
func (r *Reader) followed(appids []string) []string {
	return slices.DeleteFunc(slices.Clone(appids), func(id string) bool { return r.checkAccount(id) != nil })
}

// names returns the names of all credentials of the accounts, seen or not. No accounts means all accounts.
func (r *Reader) names(appids []string) []bucket.Name {
	var names []bucket.Name
	if len(appids) == 0 {
		r.latest.Each(func(n bucket.Name, _ *bucket.Slot) { names = append(names, n) })
	}
	for _, id := range appids {
		for _, k := range messages.Kinds {
			names = append(names, bucket.Name{AppID: id, Kind: k})
		}
	}
	return names
}

// listener collects the names of the credentials that were replaced since the last call of take.
type listener struct {
	wake    chan struct{} // has an element while pending has
	pending map[bucket.Name]struct{}
}

// listeners are the listeners of each account, by AppID; "" has the listeners of all accounts.
type listeners map[string]map[*listener]struct{}

// notify wakes the listeners of a credential. The Reader's mutex is locked.
func (ls listeners) notify(n bucket.Name) {
	for _, group := range []map[*listener]struct{}{ls[n.AppID], ls[""]} {
		for l := range group {
			l.pending[n] = struct{}{}
			select {
			case l.wake <- struct{}{}:
			default:
			}
		}
	}
}

// listen makes a listener of some accounts. No accounts means all accounts.
func (r *Reader) listen(appids ...string) *listener {
	l := &listener{wake: make(chan struct{}, 1), pending: map[bucket.Name]struct{}{}}
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

// take returns the names that a listener has collected, and clears them.
func (r *Reader) take(l *listener) []bucket.Name {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]bucket.Name, 0, len(l.pending))
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
