package bucket

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/messages"
)

// patience limits the waits for what must happen, so that a hang fails the test. It claims nothing about speed.
const patience = 3 * time.Minute

func testContext(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// fixture is the credential bucket with the settings that worker/store gives it, and a connection that may
// write to it.
type fixture struct {
	tb testing.TB
	js jetstream.JetStream
	kv jetstream.KeyValue
}

func newFixture(tb testing.TB, nc *nats.Conn) *fixture {
	tb.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		tb.Fatal(err)
	}
	source, destination := Republish(messages.DefaultBucket, messages.DefaultPrefix)
	kv, err := js.CreateKeyValue(testContext(tb), jetstream.KeyValueConfig{
		Bucket: messages.DefaultBucket, History: 1, Storage: jetstream.FileStorage, LimitMarkerTTL: MarkerTTL,
		RePublish: &jetstream.RePublish{Source: source, Destination: destination},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return &fixture{tb, js, kv}
}

// publish writes a record and returns its revision. It takes no lease, because feeds do not depend on leases.
func (f *fixture) publish(c messages.Credential) uint64 {
	f.tb.Helper()
	revision, err := f.kv.Put(testContext(f.tb), messages.Key(c.AppID, c.Kind), encode(f.tb, c))
	if err != nil {
		f.tb.Fatal(err)
	}
	return revision
}

// consumers is the number of the bucket's consumers.
func (f *fixture) consumers() int {
	f.tb.Helper()
	stream, err := f.js.Stream(testContext(f.tb), Stream(messages.DefaultBucket))
	if err != nil {
		f.tb.Fatal(err)
	}
	return stream.CachedInfo().State.Consumers
}

func encode(tb testing.TB, c messages.Credential) []byte {
	tb.Helper()
	body, err := json.Marshal(c)
	if err != nil {
		tb.Fatal(err)
	}
	return body
}

func credential(generation uint64, life time.Duration) messages.Credential {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return messages.Credential{
		AppID: "wx1", Kind: messages.AccessToken, Value: "VALUE-" + string(rune('a'+generation%26)),
		ObtainedAt: now, ExpiresAt: now.Add(life), RefreshAt: now.Add(life / 2), Generation: generation,
		Source: messages.SourceToken, Worker: "w",
	}
}

// followWatch runs a watch until the test ends, and returns its events.
func followWatch(t *testing.T, w *Watch) <-chan Event {
	t.Helper()
	return follow(t, w, &w.Emit)
}

// followPoll runs a poll until the test ends, and returns its events. It reads by direct gets if nothing else is set.
func followPoll(t *testing.T, p *Poll) <-chan Event {
	t.Helper()
	p.Prefix = messages.DefaultPrefix
	if p.Records == nil {
		p.Records = Direct(p.NC, "", messages.DefaultBucket)
	}
	return follow(t, p, &p.Emit)
}

func follow(t *testing.T, feed interface{ Run(context.Context) }, emit *func(Event)) <-chan Event {
	t.Helper()
	events := make(chan Event, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	*emit = func(e Event) {
		select {
		case events <- e:
		case <-ctx.Done():
		}
	}
	done := make(chan struct{})
	go func() { defer close(done); feed.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return events
}

// awaitEvent waits for an event, and fails the test with problem if it does not come.
func awaitEvent(t *testing.T, events <-chan Event, problem string, is func(Event) bool) Event {
	t.Helper()
	for late := testContext(t).Done(); ; {
		select {
		case e := <-events:
			if is(e) {
				return e
			}
		case <-late:
			t.Fatal(problem)
		}
	}
}

func isDown(e Event) bool { return e.Down != nil }

func isUp(e Event) bool { return e.Up }

// isRecord matches the event of a record with a revision.
func isRecord(revision uint64) func(Event) bool {
	return func(e Event) bool { return e.Key != "" && e.Revision == revision && !e.Removed }
}
