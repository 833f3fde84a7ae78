package kv

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// readerModel is a bucket with one credential, and a Reader of it.
type readerModel struct {
	*Reader
	now                  time.Time
	revision, generation uint64
	bucket               int // its number: it grows when the bucket is recreated
	stored               []messages.Credential
	published            map[string]messages.Credential // by value
	bucketOf             map[string]int                 // by value
	last                 *messages.Credential           // the last one that the Reader returned
}

func newReaderModel(t *rapid.T) *readerModel {
	t.Helper()
	m := &readerModel{
		now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), published: map[string]messages.Credential{},
		bucketOf: map[string]int{},
	}
	r, err := NewReader(nil, ReaderConfig{Source: scripted{}, Now: func() time.Time { return m.now }})
	if err != nil {
		t.Fatal(err)
	}
	m.Reader = r
	return m
}

// publish publishes a new generation, and has the Reader handle its event.
func (m *readerModel) publish(t *rapid.T) messages.Credential {
	t.Helper()
	m.revision++
	m.generation++
	m.now = m.now.Add(time.Millisecond)
	life := time.Duration(rapid.IntRange(1, 100).Draw(t, "life")) * time.Second
	c := messages.Credential{
		AppID: "wx1", Kind: messages.AccessToken, Value: fmt.Sprintf("value-%d", len(m.published)),
		ObtainedAt: m.now, RefreshAt: m.now, ExpiresAt: m.now.Add(life), Generation: m.generation,
		Revision: m.revision, Source: messages.SourceToken, Worker: "w",
	}
	m.published[c.Value], m.bucketOf[c.Value] = c, m.bucket
	m.stored = append(m.stored, c)
	m.handle(recordEvent(t, c))
	return c
}

// republish loses the bucket, and has a worker publish again what the Reader holds.
func (m *readerModel) republish(t *rapid.T) {
	t.Helper()
	if m.last == nil || !m.last.Valid(m.now) {
		return // nobody holds a credential
	}
	if m.bucketOf[m.last.Value] != m.bucket || m.last.Generation != m.generation {
		return // a worker would publish a newer one
	}
	if rapid.Bool().Draw(t, "snapshot") { // only a watch notices
		m.handle(bucket.Event{Reset: true})
	}
	again := *m.last
	again.Revision = 1
	m.revision, m.stored = 1, []messages.Credential{again}
	m.bucket++
	m.published[again.Value], m.bucketOf[again.Value] = again, m.bucket
	m.handle(recordEvent(t, again))
	m.expectCurrent(t, again)
}

// expectCurrent checks that the Reader returns a record that was just published.
func (m *readerModel) expectCurrent(t *rapid.T, want messages.Credential) {
	t.Helper()
	got, err := m.Get("wx1", messages.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Fatalf("%v was published, and %v is returned", want, got)
	}
}

// check checks what the Reader returns now.
func (m *readerModel) check(t *rapid.T, h *Handle) {
	t.Helper()
	if rapid.Bool().Draw(t, "the clock advances") {
		m.setClock()
	}
	c, err := m.Get("wx1", messages.AccessToken)
	value, handleErr := h.Value()
	if (err == nil) != (handleErr == nil) || c.Value != value {
		t.Fatalf("Get returns %q, %v; the handle %q, %v", c.Value, err, value, handleErr)
	}
	if err != nil {
		if !errors.Is(err, ErrExpired) && !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		return
	}
	if c != m.published[c.Value] {
		t.Fatalf("%v was never published", c)
	}
	if !c.Valid(m.now) {
		t.Fatalf("%v has expired", c)
	}
	if m.last != nil && m.last.Valid(m.now) && c.Generation < m.last.Generation &&
		!c.ObtainedAt.After(m.last.ObtainedAt) {
		t.Fatalf("the Reader went back from %v to %v", m.last, c)
	}
	m.last = &c
}

// Whatever a bucket delivers, in whatever order, and however the time advances: a Reader returns nothing that
// was never published or has expired; it never goes back to a lower generation that was not obtained later; and it
// has the newest credential that was delivered, also after a forged one.
func TestPropertyReaderNeverGoesBackAndNeverReturnsAnExpiredValue(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newReaderModel(t)
		h := m.Handle("wx1", messages.AccessToken)
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { m.check(t, h) },
			"time passes": func(t *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.IntRange(1, 40_000).Draw(t, "ms")) * time.Millisecond)
				m.clock.Store(never) // nothing advances the clock here: a handle must not use it
			},
			"a record is published": func(t *rapid.T) { m.expectCurrent(t, m.publish(t)) },
			"an old record is delivered": func(t *rapid.T) { // from a replica that lags, or from a backup
				if len(m.stored) > 0 {
					m.handle(recordEvent(t, rapid.SampledFrom(m.stored).Draw(t, "record")))
				}
			},
			"the bucket and all memory of generations are lost": func(t *rapid.T) {
				m.bucket, m.revision, m.generation, m.stored = m.bucket+1, 0, 0, nil
				if rapid.Bool().Draw(t, "snapshot") {
					m.handle(bucket.Event{Reset: true})
				}
			},
			"the bucket is lost, and a worker publishes again what it holds": m.republish,
			"a record with a high generation is forged": func(t *rapid.T) {
				m.now = m.now.Add(time.Millisecond)
				c := messages.Credential{
					AppID: "wx1", Kind: messages.AccessToken, Value: fmt.Sprintf("forged-%d", len(m.published)),
					ObtainedAt: m.now, RefreshAt: m.now, ExpiresAt: m.now.Add(messages.MaxLife),
					Generation: rapid.Uint64Range(m.generation+1, messages.MaxGeneration).Draw(t, "generation"),
					Revision:   m.revision + 1, Source: messages.SourceToken, Worker: "w",
				}
				m.published[c.Value] = c
				m.handle(recordEvent(t, c))
			},
			"the record is removed": func(*rapid.T) {
				m.handle(bucket.Event{Key: "wx1.access_token", Removed: true})
			},
			"another session begins": func(*rapid.T) {
				m.handle(bucket.Event{Reset: true})
				m.handle(bucket.Event{Ready: true})
			},
			"something that is not a record is delivered": func(*rapid.T) {
				m.handle(bucket.Event{Key: "wx1.access_token", Value: []byte("{"), Revision: m.revision})
			},
		})
	})
}
