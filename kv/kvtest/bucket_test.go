package kvtest_test

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/kv/kvtest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// token is the access_token of wx1 in a Reader, or why there is none.
func token(r *kv.Reader) string {
	v, err := r.AccessToken("wx1")
	h, herr := r.Handle("wx1", messages.AccessToken).Value()
	switch {
	case v != h || errors.Is(err, kv.ErrExpired) != errors.Is(herr, kv.ErrExpired):
		return "AccessToken and Handle differ"
	case errors.Is(err, store.ErrNotFound):
		return "not found"
	case errors.Is(err, kv.ErrExpired):
		return "expired"
	}
	return v
}

func TestReadersHaveSeenEachChangeWhenItsMethodReturns(t *testing.T) {
	t.Parallel()
	b := kvtest.NewBucket()
	defer b.Close()
	early := b.Reader(kv.ReaderConfig{})
	others := b.Reader(kv.ReaderConfig{AppIDs: []string{"wx2"}})
	for i, step := range []struct {
		do   func()
		want string
	}{
		{func() {}, "not found"},
		{func() { b.Set("wx1", messages.AccessToken, "one", time.Hour) }, "one"},
		{func() { b.Set("wx1", messages.AccessToken, "two", time.Hour) }, "two"},
		{func() { b.Set("wx1", messages.JSAPITicket, "ticket", time.Hour) }, "two"},
		{func() { b.Remove("wx1", messages.AccessToken) }, "two"},
		{func() { b.Advance(time.Hour - time.Minute) }, "two"},
		{func() { b.Advance(time.Minute) }, "expired"},
		{func() { b.Set("wx1", messages.AccessToken, "three", time.Hour) }, "three"},
		{b.Disconnect, "three"},
		{func() { b.Set("wx1", messages.AccessToken, "four", 3*time.Hour) }, "three"},
		{func() { b.Advance(time.Hour) }, "expired"},
		{b.Reconnect, "four"},
		{b.Recreate, "four"},
		{func() {
			b.Advance(time.Second)
			b.Set("wx1", messages.AccessToken, "first-of-the-new-bucket", time.Hour)
		}, "first-of-the-new-bucket"},
	} {
		step.do()
		if got := token(early); got != step.want {
			t.Fatalf("step %d: %s, want %s", i, got, step.want)
		}
		if got := token(others); got != "not found" {
			t.Fatalf("step %d: a reader of only wx2 has %s", i, got)
		}
	}
	late := b.Reader(kv.ReaderConfig{})
	if got, want := token(late), token(early); got != want {
		t.Errorf("a later reader has %s, want %s", got, want)
	}
	if !late.Health().Ready {
		t.Error("a later reader is not ready")
	}
}

func TestBucketMayBeRecreatedWhileNATSIsDisconnected(t *testing.T) {
	t.Parallel()
	b := kvtest.NewBucket()
	defer b.Close()
	all, named := b.Reader(kv.ReaderConfig{}), b.Reader(kv.ReaderConfig{AppIDs: []string{"wx1"}})
	b.Set("wx1", messages.AccessToken, "one", time.Hour)
	b.Set("wx1", messages.AccessToken, "two", time.Hour)
	b.Disconnect()
	b.Recreate()
	b.Advance(time.Second)
	if c := b.Set("wx1", messages.AccessToken, "new", time.Hour); c.Generation != 1 {
		t.Fatalf("the first value of the new bucket has generation %d, want 1", c.Generation)
	}
	b.Reconnect()
	wantTokens(t, all, "new", named, "new")
}

func TestReaderTakesALowerGenerationOnlyIfItWasObtainedLater(t *testing.T) {
	t.Parallel()
	b := kvtest.NewBucket()
	defer b.Close()
	all, named := b.Reader(kv.ReaderConfig{}), b.Reader(kv.ReaderConfig{AppIDs: []string{"wx1"}})
	put := func(value string, generation uint64, obtained time.Duration) {
		at := time.Now().Add(obtained)
		b.Put(messages.Credential{
			AppID: "wx1", Kind: messages.AccessToken, Value: value, Generation: generation,
			ObtainedAt: at, ExpiresAt: at.Add(time.Hour),
		})
	}
	put("seven", 7, 0)
	put("six", 6, -time.Minute)
	wantTokens(t, all, "seven", named, "seven")
	put("five", 5, time.Minute)
	wantTokens(t, all, "five", named, "five")
}

// wantTokens checks the token of a Reader of all accounts, and of a Reader with AppIDs.
func wantTokens(t *testing.T, all *kv.Reader, wantAll string, named *kv.Reader, wantNamed string) {
	t.Helper()
	if got := token(all); got != wantAll {
		t.Errorf("the reader of all accounts has %s, want %s", got, wantAll)
	}
	if got := token(named); got != wantNamed {
		t.Errorf("the reader with AppIDs has %s, want %s", got, wantNamed)
	}
}

func TestRecordsAreLikeThoseOfAWorker(t *testing.T) {
	t.Parallel()
	b := kvtest.NewBucket()
	defer b.Close()
	var changes []kv.Change
	b.Reader(kv.ReaderConfig{OnChange: func(c kv.Change) {
		if c.AppID != "" {
			changes = append(changes, c)
		}
	}})
	first := b.Set("wx1", messages.AccessToken, "one", time.Hour)
	second := b.Put(messages.Credential{
		AppID: "wx1", Kind: messages.AccessToken, Value: "two", Generation: 7,
		ObtainedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute),
	})
	third := b.Set("wx1", messages.AccessToken, "three", time.Second)
	b.Advance(2 * time.Second)
	if diff := cmp.Diff([]uint64{1, 7, 8}, []uint64{first.Generation, second.Generation,
		third.Generation}); diff != "" {
		t.Errorf("generations: %s", diff)
	}
	if first.Revision >= second.Revision || second.Revision >= third.Revision {
		t.Errorf("revisions do not grow: %d, %d, %d", first.Revision, second.Revision, third.Revision)
	}
	if first.Life() != time.Hour {
		t.Errorf("the life is %s, want 1h", first.Life())
	}
	if len(changes) != 4 {
		t.Fatalf("%d changes, want three records and the end of the last: %v", len(changes), changes)
	}
	end := changes[3]
	if end.Record != nil {
		t.Errorf("the last change has the record %v, want none", end.Record)
	}
	if end.Revision <= third.Revision {
		t.Errorf("the last change has revision %d, want more than %d", end.Revision, third.Revision)
	}
}

func TestInvalidValuePanics(t *testing.T) {
	t.Parallel()
	b := kvtest.NewBucket()
	defer b.Close()
	defer func() {
		if err, _ := recover().(error); !errors.Is(err, messages.ErrInvalidCredential) {
			t.Errorf("the panic is %v, want %v", err, messages.ErrInvalidCredential)
		}
	}()
	b.Set("wx1", messages.AccessToken, "a\nb", time.Hour)
}

func TestReaderStartsFromItsFileWhileNATSIsDisconnected(t *testing.T) {
	t.Parallel()
	cfg := kv.ReaderConfig{CacheFile: filepath.Join(t.TempDir(), "credentials.json")}
	b := kvtest.NewBucket()
	b.Set("wx1", messages.AccessToken, "one", time.Hour)
	b.Reader(cfg)
	b.Close()
	again := kvtest.NewBucket()
	defer again.Close()
	again.Disconnect()
	r := again.Reader(cfg)
	if got := token(r); got != "one" {
		t.Errorf("the token is %s, want one", got)
	}
	health := r.Health()
	if health.Ready {
		t.Error("the reader is ready")
	}
	if health.Stale == 0 {
		t.Error("the reader is not stale")
	}
}

func TestBucketWorksInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := kvtest.NewBucket()
		defer b.Close()
		r := b.Reader(kv.ReaderConfig{})
		b.Set("wx1", messages.AccessToken, "one", time.Hour)
		<-time.After(time.Hour - time.Millisecond)
		if got := token(r); got != "one" {
			t.Errorf("a millisecond before its end: %s", got)
		}
		<-time.After(time.Millisecond)
		if got := token(r); got != "expired" {
			t.Errorf("at its end: %s", got)
		}
	})
}

func TestBucketIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	b := kvtest.NewBucket()
	defer b.Close()
	r := b.Reader(kv.ReaderConfig{})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			b.Set("wx1", messages.AccessToken, "one", time.Hour)
			b.Advance(time.Second)
			b.Reader(kv.ReaderConfig{})
			_ = token(r)
		})
	}
	all.Wait()
	c, err := r.Get("wx1", messages.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if c.Generation != 20 {
		t.Errorf("the generation is %d, want 20", c.Generation)
	}
}

// A kv.Transport must get the same answers in a test as from a worker.
func TestReportsAreAnsweredAsByAWorker(t *testing.T) {
	t.Parallel()
	b := kvtest.NewBucket()
	defer b.Close()
	r := b.Reader(kv.ReaderConfig{})
	report := func(value string) (messages.Reason, error) {
		got, err := b.Report(t.Context(), messages.RefreshCredentialRequest{
			AppID: "wx1", ValueSHA256: messages.ValueSHA256(value),
		})
		return got.Reason, err
	}
	accepts := func(messages.Credential) (string, error) { return "", nil }
	throttles := func(messages.Credential) (string, error) { return "", messages.ErrThrottled }
	for _, step := range []struct {
		do     func()
		value  func() string // the reported value
		reason messages.Reason
		err    error
		token  string // after the report
	}{
		{
			do: func() {}, value: func() string { return "one" },
			err: messages.ErrNoCredential, token: "not found",
		},
		{
			do:     func() { b.Set("wx1", messages.AccessToken, "one", time.Hour) },
			value:  func() string { return "older" },
			reason: messages.ReasonNotCurrent, token: "one",
		},
		{
			do: func() {}, value: func() string { return "one" },
			reason: messages.ReasonRefreshed, token: "kvtest-access_token-2",
		},
		{
			do: func() { b.AnswerReports(accepts) }, value: func() string { return token(r) },
			reason: messages.ReasonAlive, token: "kvtest-access_token-2",
		},
		{
			do: func() { b.AnswerReports(throttles) }, value: func() string { return token(r) },
			err: messages.ErrThrottled, token: "kvtest-access_token-2",
		},
		{
			do: b.Disconnect, value: func() string { return token(r) },
			err: nats.ErrNoResponders, token: "kvtest-access_token-2",
		},
	} {
		step.do()
		reason, err := report(step.value())
		if !errors.Is(err, step.err) {
			t.Errorf("the error of the report is %v, want %v", err, step.err)
		}
		if reason != step.reason {
			t.Errorf("the reason is %q, want %q", reason, step.reason)
		}
		if got := token(r); got != step.token {
			t.Errorf("after the report the token is %s, want %s", got, step.token)
		}
	}
	if b.Reports() != 5 {
		t.Errorf("the bucket received %d reports, want 5", b.Reports())
	}
}
