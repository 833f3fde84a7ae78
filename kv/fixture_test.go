package kv

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/internal/seal"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// patience limits the waits for what must happen, so that a hang fails the test. It claims nothing about speed.
const patience = 3 * time.Minute

func testContext(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// connector is a server, a cluster or a gated server.
type connector interface {
	Connect(...nats.Option) *nats.Conn
}

// gated is a server whose Readers connect through a gate.
type gated struct {
	*natstest.Server
	gate *natstest.Gate
}

func startGated(tb testing.TB) gated {
	tb.Helper()
	return gated{natstest.Start(tb), natstest.NewGate()}
}

func (g gated) Connect(opts ...nats.Option) *nats.Conn {
	return g.Server.Connect(append(opts, g.gate.Option())...)
}

// publisher is a worker's side of the bucket.
type publisher struct {
	*store.Store
	tb testing.TB
	nc *nats.Conn
}

// newPublisher makes a publisher on a connection of its own, and creates the buckets. It answers requests for
// credentials, as a worker does, but from the bucket.
func newPublisher(tb testing.TB, s connector, opts ...nats.Option) *publisher {
	tb.Helper()
	nc := s.Connect(opts...)
	st, err := store.New(nc, store.Config{Worker: "w", Keys: func(appid string) []seal.Key {
		return []seal.Key{seal.New(appid, "secret")}
	}})
	if err != nil {
		tb.Fatal(err)
	}
	p := &publisher{st, tb, nc}
	p.ensure()
	subject := messages.DefaultPrefix + "." + messages.SubjectCredentialGet
	if _, err = nc.Subscribe(subject+".*", func(m *nats.Msg) {
		go p.answer(m, strings.TrimPrefix(m.Subject, subject+"."))
	}); err == nil {
		err = nc.Flush()
	}
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// answer answers a request for a credential with what is stored, whatever it is.
func (p *publisher) answer(m *nats.Msg, appid string) {
	reply := nats.NewMsg(m.Reply)
	reply.Header.Set(messages.HeaderReply, messages.ReplyVersion)
	refuse := func(s messages.Symbol) {
		refusal := messages.Errorf(s, "nothing")
		reply.Header = refusal.Header()
		reply.Data, _ = json.Marshal(refusal)
	}
	var req messages.GetCredentialRequest
	if json.Unmarshal(m.Data, &req) != nil {
		return
	}
	var c messages.Credential
	stored, err := p.stored(messages.Key(appid, req.Kind))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound), err == nil && len(stored.Data) == 0:
		refuse(messages.NoCredential)
	case err != nil:
		refuse(messages.Overloaded)
	case json.Unmarshal(stored.Data, &c) != nil:
		reply.Data = stored.Data
	default:
		c.Revision = stored.Sequence
		reply.Data, _ = json.Marshal(c)
	}
	_ = p.nc.PublishMsg(reply)
}

// stored is the last message of a key.
func (p *publisher) stored(key string) (*jetstream.RawStreamMsg, error) {
	js, err := jetstream.New(p.nc)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	stream, err := js.Stream(ctx, bucket.Stream(messages.DefaultBucket))
	if err != nil {
		return nil, err
	}
	return stream.GetLastMsgForSubject(ctx, bucket.Subject(messages.DefaultBucket, key))
}

// ensure creates the buckets. It may fail for a moment, after a bucket was deleted or while a cluster elects
// leaders.
func (p *publisher) ensure() {
	p.tb.Helper()
	ctx := testContext(p.tb)
	for err := p.Ensure(ctx); err != nil; err = p.Ensure(ctx) {
		if errors.Is(err, store.ErrBucket) || ctx.Err() != nil {
			p.tb.Fatal(err)
		}
	}
}

// publish publishes a record as soon as the server accepts it, and returns the record's revision.
func (p *publisher) publish(c messages.Credential) uint64 {
	p.tb.Helper()
	ctx := testContext(p.tb)
	for {
		revision, err := p.tryPublish(ctx, c)
		if err == nil {
			return revision
		}
		if ctx.Err() != nil {
			p.tb.Fatal(err)
		}
	}
}

func (p *publisher) tryPublish(ctx context.Context, c messages.Credential) (uint64, error) {
	l, err := p.Acquire(ctx, c.AppID, c.Kind, 5*time.Second)
	if err != nil {
		return 0, err
	}
	defer l.Release(ctx)
	return l.Publish(ctx, c)
}

// credential is a record of wx1.access_token. Its value depends on the generation.
func credential(generation uint64, life time.Duration) messages.Credential {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return messages.Credential{
		AppID: "wx1", Kind: messages.AccessToken, Value: "VALUE-" + string(rune('a'+generation%26)),
		ObtainedAt: now, ExpiresAt: now.Add(life), RefreshAt: now.Add(life / 2), Generation: generation,
		Source: messages.SourceToken, Worker: "w",
	}
}

// checkGeneration checks the generation of the current wx1.access_token.
func checkGeneration(tb testing.TB, r *Reader, when string, want uint64) {
	tb.Helper()
	c, err := r.Get("wx1", messages.AccessToken)
	if err != nil {
		tb.Errorf("%s: %v, want generation %d", when, err, want)
		return
	}
	if c.Generation != want {
		tb.Errorf("%s: generation %d, want %d", when, c.Generation, want)
	}
}

// awaitToken waits for a wx1.access_token above a generation.
func awaitToken(tb testing.TB, r *Reader, above uint64) messages.Credential {
	tb.Helper()
	c, err := r.WaitNewer(testContext(tb), "wx1", messages.AccessToken, above)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// feeds are the configurations of Readers with all feeds.
func feeds() map[string]ReaderConfig {
	return map[string]ReaderConfig{
		"watch of all": {Feed: FeedWatch},
		"watch of one": {Feed: FeedWatch, AppIDs: []string{"wx1"}},
		"direct":       {Feed: FeedDirect, AppIDs: []string{"wx1"}},
		"requests":     {Feed: FeedRequests, AppIDs: []string{"wx1"}},
	}
}

// observed is a running Reader whose changes a test can observe.
type observed struct {
	*Reader
	mu  sync.Mutex
	out chan<- Change
}

// observe returns the changes from now on.
func (o *observed) observe() <-chan Change {
	changes := make(chan Change, 100)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.out = changes
	return changes
}

// startReader runs a Reader until the test ends, and waits for its first snapshot.
func startReader(tb testing.TB, s connector, cfg ReaderConfig) *observed {
	tb.Helper()
	o := new(observed)
	snapshot := make(chan struct{}) // closed when the first snapshot is complete: later changes are new
	once := sync.Once{}
	ended := make(chan struct{})
	cfg.OnChange = func(c Change) {
		if c.Ready {
			once.Do(func() { close(snapshot) })
		}
		o.mu.Lock()
		out := o.out
		o.mu.Unlock()
		if out == nil {
			return
		}
		select {
		case out <- c:
		case <-ended:
		}
	}
	r, err := NewReader(s.Connect(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	o.Reader = r
	runReader(tb, r)
	tb.Cleanup(func() { close(ended) })
	select {
	case <-snapshot:
	case <-time.After(patience):
		tb.Fatal("the Reader has no snapshot")
	}
	return o
}

// runReader runs a Reader, and returns a function that ends it. The end of the test does, too.
func runReader(tb testing.TB, r *Reader) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.Run(ctx) }()
	stop = func() { cancel(); <-done }
	tb.Cleanup(stop)
	return stop
}

// awaitChange waits for a change, and fails the test with problem if it does not come.
func awaitChange(tb testing.TB, changes <-chan Change, problem string, is func(Change) bool) Change {
	tb.Helper()
	for late := testContext(tb).Done(); ; {
		select {
		case c := <-changes:
			if is(c) {
				return c
			}
		case <-late:
			tb.Fatal(problem)
		}
	}
}

// awaitRevision waits for the change of a revision. Other changes may come before: on a busy machine a watch
// may begin another session, with a snapshot.
func awaitRevision(tb testing.TB, changes <-chan Change, revision uint64) Change {
	tb.Helper()
	is := func(c Change) bool { return c.Revision == revision }
	return awaitChange(tb, changes, "the change is not delivered", is)
}

// checkRecord checks that a change has the record of a generation.
func checkRecord(tb testing.TB, c Change, generation uint64) {
	tb.Helper()
	if c.Record == nil || c.Record.Generation != generation {
		tb.Errorf("the change has the record %v, want generation %d", c.Record, generation)
	}
}

// scripted is a source that emits the events that a test sends.
type scripted struct{ events chan bucket.Event }

func (s scripted) Run(ctx context.Context, emit func(bucket.Event)) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-s.events:
			emit(e)
		}
	}
}

func (scripted) Report(context.Context, messages.RefreshCredentialRequest) (messages.Refreshed, error) {
	return messages.Refreshed{}, messages.ErrOverloaded
}

// helper is the part of testing.TB that rapid.T has too.
type helper interface {
	Helper()
	Fatal(...any)
}

// recordEvent is the event of a record. Without a revision, the revision is the generation.
func recordEvent(tb helper, c messages.Credential) bucket.Event {
	tb.Helper()
	revision := c.Revision
	if revision == 0 {
		revision = c.Generation
	}
	c.Revision = 0
	body, err := json.Marshal(c)
	if err != nil {
		tb.Fatal(err)
	}
	return bucket.Event{Key: messages.Key(c.AppID, c.Kind), Value: body, Revision: revision}
}

// put has a Reader handle the event of a record.
func put(tb testing.TB, r *Reader, c messages.Credential) {
	tb.Helper()
	r.handle(recordEvent(tb, c))
}

// scriptedReader runs a Reader, and returns the channel of its events. It works in a bubble of synctest; stop
// ends it.
func scriptedReader(tb testing.TB, cfg ReaderConfig) (r *Reader, events chan<- bucket.Event, stop func()) {
	tb.Helper()
	source := scripted{make(chan bucket.Event)}
	cfg.Source = source
	r, err := NewReader(nil, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return r, source.events, runReader(tb, r)
}

// idleReader makes a Reader that does not run: a test calls its methods.
func idleReader(tb testing.TB, cfg ReaderConfig) *Reader {
	tb.Helper()
	cfg.Source = scripted{}
	r, err := NewReader(nil, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func sleep(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // virtual time
