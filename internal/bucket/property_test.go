package bucket

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wxkeeper/wxkeeper/messages"
)

// latestModel is one credential of a bucket, and what the callers of a Latest know about it.
type latestModel struct {
	*Latest
	now                  time.Time
	revision, generation uint64
	stored               *messages.Credential // the record of the bucket
	published            []messages.Credential
	notified             *messages.Credential // what Get returned when the credential was named last
	changed              *messages.Credential // the record of the last change
}

var (
	modelName = Name{"wx1", messages.AccessToken}
	modelKey  = messages.Key(modelName.AppID, modelName.Kind)
)

// get returns the current credential, or nil.
func (m *latestModel) get(t *rapid.T) *messages.Credential {
	t.Helper()
	c, err := m.Get(modelName.AppID, modelName.Kind)
	if err != nil && !errors.Is(err, ErrExpired) && !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	return c
}

// do does something that may replace the credential, and checks that Latest names the credential if it replaced
// one that is valid.
func (m *latestModel) do(t *rapid.T, replace func() []Name) {
	t.Helper()
	before := m.get(t)
	replaced := replace()
	after := m.get(t)
	named := slices.Contains(replaced, modelName)
	if before != nil && after != before && !named {
		t.Fatalf("%v was replaced by %v and is not named", before, after)
	}
	if named {
		m.notified = after
	}
}

// deliver applies an event of the feed.
func (m *latestModel) deliver(t *rapid.T, e Event) {
	t.Helper()
	m.do(t, func() []Name {
		changes, replaced, _ := m.Apply(e) // an event may have an invalid record
		for _, c := range changes {
			if c.AppID != "" {
				m.changed = c.Record
			}
		}
		return replaced
	})
}

// next is a new credential.
func (m *latestModel) next(t *rapid.T) messages.Credential {
	t.Helper()
	m.revision++
	m.generation++
	m.now = m.now.Add(time.Millisecond)
	life := time.Duration(rapid.IntRange(1, 100).Draw(t, "life")) * time.Second
	c := messages.Credential{
		AppID: modelName.AppID, Kind: modelName.Kind, Value: fmt.Sprintf("value-%d", len(m.published)),
		ObtainedAt: m.now, RefreshAt: m.now, ExpiresAt: m.now.Add(life), Generation: m.generation,
		Revision: m.revision, Source: messages.SourceToken, Worker: "w",
	}
	m.published = append(m.published, c)
	m.stored = &c
	return c
}

func recordEvent(t *rapid.T, c messages.Credential) Event {
	t.Helper()
	revision := c.Revision
	c.Revision = 0
	body, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return Event{Key: messages.Key(c.AppID, c.Kind), Value: body, Revision: revision}
}

// Whatever the feed delivers and the caller accepts, in whatever order, and however the clock advances: Latest
// returns no expired credential, names each credential that it replaces, and its changes show what the bucket
// has. Callers neither miss a value nor a loss then. (What a Reader hands out is the subject of the property
// test of package kv.)
func TestPropertyLatestNamesWhatItReplacesAndReturnsTheChangesOfTheBucket(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &latestModel{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
		m.Latest = NewLatest(func() time.Time { return m.now })
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if c := m.get(t); c != nil && !c.Valid(m.now) {
					t.Fatalf("%v has expired", c)
				}
			},
			"time passes": func(t *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.IntRange(1, 40_000).Draw(t, "ms")) * time.Millisecond)
			},
			"a record is preferred": func(t *rapid.T) {
				if held := m.Held(modelName.AppID, modelName.Kind); held != nil && len(m.published) > 0 {
					refused := rapid.SampledFrom([]string{held.Value, "another value"}).Draw(t, "refused")
					revision := rapid.SampledFrom(m.published).Draw(t, "record").Revision
					m.do(t, func() []Name { return m.Prefer(modelName, refused, revision) })
				}
			},
			"promote": func(t *rapid.T) {
				m.do(t, m.Promote)
				if c := m.get(t); c != nil && c != m.notified {
					t.Fatalf("after Promote, %v is current; the caller was last notified of %v", c, m.notified)
				}
			},
			"a record is published and delivered": func(t *rapid.T) {
				m.deliver(t, recordEvent(t, m.next(t)))
			},
			"a record is published and accepted": func(t *rapid.T) {
				c := m.next(t)
				m.do(t, func() []Name { return m.Accept(c) })
			},
			"an old record is delivered": func(t *rapid.T) {
				if len(m.published) > 0 {
					m.deliver(t, recordEvent(t, rapid.SampledFrom(m.published).Draw(t, "record")))
				}
			},
			"the record is removed": func(t *rapid.T) {
				m.stored = nil
				m.deliver(t, Event{Key: modelKey, Removed: true})
			},
			"the record is overwritten with something else": func(t *rapid.T) {
				m.stored = nil
				m.deliver(t, Event{Key: modelKey, Value: []byte("{")})
			},
			"a snapshot": func(t *rapid.T) {
				recreated := rapid.Bool().Draw(t, "recreated")
				if recreated {
					m.stored, m.generation, m.revision = nil, 0, 0
				}
				m.deliver(t, Event{Reset: true})
				if m.stored != nil {
					m.deliver(t, recordEvent(t, *m.stored))
				}
				m.deliver(t, Event{Ready: true})
				if (m.changed == nil) != (m.stored == nil) {
					t.Fatalf("after the snapshot, the last change has %v; the bucket has %v", m.changed, m.stored)
				}
				if m.stored != nil && *m.changed != *m.stored {
					t.Fatalf("after the snapshot, the last change has %v; the bucket has %v", m.changed, m.stored)
				}
			},
		})
	})
}
