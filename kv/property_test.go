package kv

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// Whatever a bucket brings, in whatever order, and however the clock goes on: a Reader hands out nothing that was never
// published or has ended, never goes back to what was obtained earlier, nor, in one bucket, to a lower generation, and it
// has the newest that it was told.
func TestPropertyReaderNeverGoesBackAndNeverHandsOutTheDead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		r, err := NewReader(nil, ReaderConfig{Source: scripted{}, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		h := r.Handle("wx1", messages.AccessToken)
		published := map[string]messages.Credential{}
		var values []string
		var last *messages.Credential           // handed out
		bucketOf, bucket := map[string]int{}, 0 // by value; buckets are made anew
		revision, generation := uint64(0), uint64(0)
		publish := func(t *rapid.T) messages.Credential {
			revision++
			generation++
			now = now.Add(time.Millisecond)
			c := messages.Credential{
				AppID: "wx1", Kind: messages.AccessToken, Value: fmt.Sprintf("value-%d", len(published)), ObtainedAt: now, RefreshAt: now,
				ExpiresAt: now.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "life")) * time.Second), Generation: generation, Revision: revision, Source: messages.SourceToken, Worker: "w",
			}
			published[c.Value] = c
			values, bucketOf[c.Value] = append(values, c.Value), bucket
			r.told(event(t, c))
			return c
		}
		look := func() {
			if rapid.Bool().Draw(t, "clock turns") {
				r.setClock()
			}
			c, err := r.Get("wx1", messages.AccessToken)
			value, herr := h.Value()
			switch {
			case err != nil && !errors.Is(err, ErrExpired) && !errors.Is(err, store.ErrNotFound):
				t.Fatal(err)
			case (err == nil) != (herr == nil) || c.Value != value:
				t.Fatalf("Get has %q, %v; the handle %q, %v", c.Value, err, value, herr)
			case err != nil:
				return
			case c != published[c.Value]:
				t.Fatalf("%v was never published", c)
			case !c.Valid(now):
				t.Fatalf("%v has ended", c)
			}
			if last != nil && last.Valid(now) {
				if c.Generation < last.Generation && (bucketOf[c.Value] == bucketOf[last.Value] || !c.ObtainedAt.After(last.ObtainedAt)) {
					t.Fatalf("from %v back to %v", last, c)
				}
			}
			last = &c
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { look() },
			"time goes on": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 40_000).Draw(t, "ms")) * time.Millisecond)
				r.clock.Store(never) // here it is turned by hand: a handle must not believe one that stands
			},
			"a worker publishes": func(t *rapid.T) {
				c := publish(t)
				if got, err := r.Get("wx1", messages.AccessToken); err != nil || got != c {
					t.Fatalf("after %v was published there is %v, %v", c, got, err)
				}
			},
			"an old record comes": func(t *rapid.T) { // from a replica that lags, or a backup
				if len(values) > 0 {
					r.told(event(t, published[rapid.SampledFrom(values).Draw(t, "value")]))
				}
			},
			"all memory is lost, and the bucket": func(t *rapid.T) {
				bucket, revision, generation, values = bucket+1, 0, 0, nil
				r.told(bucket.Event{Reset: rapid.Bool().Draw(t, "snapshot"), Recreated: true})
			},
			"the bucket is lost, and a worker puts back what it holds": func(t *rapid.T) {
				if last == nil || !last.Valid(now) || bucketOf[last.Value] != bucket || last.Generation != generation {
					return
				}
				switch rapid.IntRange(0, 2).Draw(t, "as told by") {
				case 0: // a watch
					r.told(bucket.Event{Reset: true, Recreated: true})
				case 1: // a watch that takes it for the old one: a backup
					r.told(bucket.Event{Reset: true})
				case 2: // direct gets
					r.told(bucket.Event{Recreated: true})
				}
				back := *last
				revision, values, back.Revision = 1, []string{back.Value}, 1
				bucket++
				bucketOf[back.Value], published[back.Value] = bucket, back
				r.told(event(t, back))
				if got, err := r.Get("wx1", messages.AccessToken); err != nil || got != back {
					t.Fatalf("after %v was put back there is %v, %v", back, got, err)
				}
			},
			"the record goes":      func(*rapid.T) { r.told(bucket.Event{Key: "wx1.access_token", Removed: true}) },
			"another session":      func(*rapid.T) { r.told(bucket.Event{Reset: true}); r.told(bucket.Event{Ready: true}) },
			"what is not a record": func(*rapid.T) { r.told(bucket.Event{Key: "wx1.access_token", Value: []byte("{"), Revision: revision}) },
		})
	})
}

// event is the event of a record.
func event(t *rapid.T, c messages.Credential) bucket.Event {
	t.Helper()
	body, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return bucket.Event{Key: messages.Key(c.AppID, c.Kind), Value: body, Revision: c.Revision}
}
