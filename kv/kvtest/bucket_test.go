package kvtest_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/kv/kvtest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// token is what a reader says of the access_token of wx1.
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

func TestEachStepIsSeenWhenItReturns(t *testing.T) {
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
		{b.GoAway, "three"},
		{func() { b.Set("wx1", messages.AccessToken, "four", 3*time.Hour) }, "three"},
		{func() { b.Advance(time.Hour) }, "expired"},
		{b.ComeBack, "four"},
		{b.Anew, "four"},
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
			t.Fatalf("step %d: a reader of wx2 alone says %s", i, got)
		}
	}
	if late := b.Reader(kv.ReaderConfig{}); token(late) != token(early) || !late.Health().Ready {
		t.Errorf("a reader that comes later says %s", token(late))
	}
}

func TestBucketMadeAnewWhileNATSIsAwayIsAnother(t *testing.T) {
	t.Parallel()
	b := kvtest.NewBucket()
	defer b.Close()
	all, named := b.Reader(kv.ReaderConfig{}), b.Reader(kv.ReaderConfig{AppIDs: []string{"wx1"}})
	b.Set("wx1", messages.AccessToken, "one", time.Hour)
	b.Set("wx1", messages.AccessToken, "two", time.Hour)
	b.GoAway()
	b.Anew()
	b.Advance(time.Second)
	if c := b.Set("wx1", messages.AccessToken, "new", time.Hour); c.Generation != 1 {
		t.Fatalf("%v, want generation 1", c)
	}
	b.ComeBack()
	if token(all) != "new" || token(named) != "new" {
		t.Errorf("%s, and of the account alone %s", token(all), token(named))
	}
}

// Where the bucket is the same, a lower generation is an older value, whatever its time says; who may not ask takes the time.
func TestReaderOfNamedAccountsReckonsWithAnotherBucketAfterEachLoss(t *testing.T) {
	t.Parallel()
	b := kvtest.NewBucket()
	defer b.Close()
	all, named := b.Reader(kv.ReaderConfig{}), b.Reader(kv.ReaderConfig{AppIDs: []string{"wx1"}})
	c := b.Put(messages.Credential{AppID: "wx1", Kind: messages.AccessToken, Value: "seven", ObtainedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour), Generation: 7})
	lower := func(value string) {
		c.Value, c.Generation, c.ObtainedAt = value, c.Generation-1, c.ObtainedAt.Add(time.Second)
		b.Put(c)
	}
	lower("six")
	if token(all) != "seven" || token(named) != "seven" {
		t.Errorf("before a loss: %s, %s", token(all), token(named))
	}
	b.GoAway()
	lower("five")
	b.ComeBack()
	if token(all) != "seven" || token(named) != "five" {
		t.Errorf("after it: %s, and of the account alone %s; want seven and five", token(all), token(named))
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
	second := b.Put(messages.Credential{AppID: "wx1", Kind: messages.AccessToken, Value: "two", ObtainedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute), Generation: 7})
	third := b.Set("wx1", messages.AccessToken, "three", time.Second)
	b.Advance(2 * time.Second)
	if first.Generation != 1 || third.Generation != 8 || first.Revision >= second.Revision || second.Revision >= third.Revision || first.Life() != time.Hour {
		t.Errorf("records %v, %v, %v", first, second, third)
	}
	if len(changes) != 4 || changes[3].Record != nil || changes[3].Revision <= third.Revision {
		t.Errorf("the changes %v, want three records and the end of the last", changes)
	}
	defer func() {
		if err, ok := recover().(error); !ok || !errors.Is(err, messages.ErrInvalidCredential) {
			t.Errorf("a broken value panics with %v", err)
		}
	}()
	b.Set("wx1", messages.AccessToken, "a\nb", time.Hour)
}

func TestReaderStartsFromItsFileWhileTheBucketIsAway(t *testing.T) {
	t.Parallel()
	cfg := kv.ReaderConfig{CacheFile: filepath.Join(t.TempDir(), "credentials.json")}
	b := kvtest.NewBucket()
	b.Set("wx1", messages.AccessToken, "one", time.Hour)
	b.Reader(cfg)
	b.Close()
	again := kvtest.NewBucket()
	defer again.Close()
	again.GoAway()
	r := again.Reader(cfg)
	if got := token(r); got != "one" || r.Health().Ready || r.Health().Stale == 0 {
		t.Errorf("%s, %+v", got, r.Health())
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

func TestManyMayUseABucketAtOnce(t *testing.T) {
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
	if c, err := r.Get("wx1", messages.AccessToken); err != nil || c.Generation != 20 {
		t.Errorf("generation %d, %v; want 20", c.Generation, err)
	}
}

// A worker's answers, as the Transport of kv meets them.
func TestReportsAreAnsweredAsAWorkerDoes(t *testing.T) {
	t.Parallel()
	b := kvtest.NewBucket()
	defer b.Close()
	r := b.Reader(kv.ReaderConfig{})
	sha := func(value string) string {
		sum := sha256.Sum256([]byte(value))
		return hex.EncodeToString(sum[:])
	}
	report := func(value string) (messages.Reason, error) {
		got, err := b.Report(context.Background(), messages.RefreshCredentialRequest{AppID: "wx1", ValueSHA256: sha(value)})
		return got.Reason, err
	}
	if _, err := report("one"); !errors.Is(err, messages.ErrNoCredential) {
		t.Errorf("of nothing: %v", err)
	}
	b.Set("wx1", messages.AccessToken, "one", time.Hour)
	if reason, err := report("older"); err != nil || reason != messages.ReasonNotCurrent || token(r) != "one" {
		t.Errorf("of an older value: %s, %v, and the token is %s", reason, err, token(r))
	}
	if reason, err := report("one"); err != nil || reason != messages.ReasonRefreshed || token(r) != "kvtest-access_token-2" {
		t.Errorf("of the current value: %s, %v, and the token is %s", reason, err, token(r))
	}
	b.Answer(func(messages.Credential) (string, error) { return "", nil })
	if reason, err := report(token(r)); err != nil || reason != messages.ReasonAlive {
		t.Errorf("where WeChat accepts it: %s, %v", reason, err)
	}
	b.Answer(func(messages.Credential) (string, error) { return "", messages.ErrThrottled })
	if _, err := report(token(r)); !errors.Is(err, messages.ErrThrottled) {
		t.Errorf("where it is throttled: %v", err)
	}
	b.GoAway()
	if _, err := report(token(r)); err == nil {
		t.Error("a report reaches a bucket that is away")
	}
	if b.Reports() != 5 {
		t.Errorf("%d reports, want 5", b.Reports())
	}
}
