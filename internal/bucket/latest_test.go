package bucket

import (
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/messages"
)

// latestFixture is a Latest with a clock that a test sets.
type latestFixture struct {
	*Latest
	tb    testing.TB
	start time.Time
	now   time.Time
}

func newLatestFixture(tb testing.TB) *latestFixture {
	tb.Helper()
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f := &latestFixture{tb: tb, start: start, now: start}
	f.Latest = NewLatest(func() time.Time { return f.now })
	return f
}

// record is the record of a generation. It was obtained some time after the test began, and lives for an hour.
func (f *latestFixture) record(generation uint64, obtained time.Duration) messages.Credential {
	c := credential(generation, time.Hour)
	c.ObtainedAt = f.start.Add(obtained)
	c.RefreshAt, c.ExpiresAt = c.ObtainedAt.Add(30*time.Minute), c.ObtainedAt.Add(time.Hour)
	return c
}

// until is a record with another end, some time after the test began.
func (f *latestFixture) until(generation uint64, obtained, end time.Duration) messages.Credential {
	c := f.record(generation, obtained)
	c.ExpiresAt = f.start.Add(end)
	return c
}

// put applies the event of a record.
func (f *latestFixture) put(c messages.Credential, revision uint64) (changes []Change, replaced []Name) {
	f.tb.Helper()
	return f.apply(Event{Key: messages.Key(c.AppID, c.Kind), Value: encode(f.tb, c), Revision: revision})
}

// apply applies a valid event.
func (f *latestFixture) apply(e Event) (changes []Change, replaced []Name) {
	f.tb.Helper()
	changes, replaced, err := f.Apply(e)
	if err != nil {
		f.tb.Fatal(err)
	}
	return changes, replaced
}

func TestLatestDecidesWhichCredentialIsCurrent(t *testing.T) {
	t.Parallel()
	const minute = time.Minute
	for name, tt := range map[string]struct {
		do           func(f *latestFixture)
		want         uint64 // generation; 0: none
		wantRevision uint64
		wantErr      error
	}{
		"nothing was seen": {
			do:      func(*latestFixture) {},
			wantErr: ErrNotFound,
		},
		"a higher generation": {
			do:   func(f *latestFixture) { f.put(f.record(1, 0), 1); f.put(f.record(2, 0), 2) },
			want: 2, wantRevision: 2,
		},
		"a lower generation, of a replica that lags": {
			do:   func(f *latestFixture) { f.put(f.record(2, 0), 2); f.put(f.record(1, 0), 1) },
			want: 2, wantRevision: 2,
		},
		"a lower generation that was obtained later": {
			do:   func(f *latestFixture) { f.put(f.record(2, 0), 2); f.put(f.record(1, minute), 3) },
			want: 1, wantRevision: 3,
		},
		"a lower generation that was obtained earlier, with a higher revision": {
			do:   func(f *latestFixture) { f.put(f.record(2, 0), 2); f.put(f.record(1, -minute), 3) },
			want: 2, wantRevision: 2,
		},
		"a higher generation that has expired": {
			do: func(f *latestFixture) {
				c := f.record(9, -2*time.Hour)
				f.put(f.record(2, 0), 2)
				f.put(c, 3)
			},
			want: 2, wantRevision: 2,
		},
		"a lower generation, when the higher one has expired": {
			do: func(f *latestFixture) {
				f.put(f.record(5, 0), 5)
				f.put(f.until(1, -minute, 2*time.Hour), 6)
				f.now = f.start.Add(time.Hour)
			},
			want: 1, wantRevision: 6,
		},
		"a still lower generation, when the higher one has expired": {
			do: func(f *latestFixture) {
				f.put(f.record(5, 0), 5)
				f.put(f.until(3, -minute, 2*time.Hour), 6)
				f.now = f.start.Add(time.Hour)
				f.put(f.until(1, -2*minute, 2*time.Hour), 7)
			},
			want: 3, wantRevision: 6,
		},
		"of two lower generations the one that was obtained later": {
			do: func(f *latestFixture) {
				f.put(f.record(5, 0), 5)
				f.put(f.until(1, -minute, 2*time.Hour), 6)
				f.put(f.until(2, -2*minute, 2*time.Hour), 7)
				f.now = f.start.Add(time.Hour)
			},
			want: 1, wantRevision: 6,
		},
		"a lower generation that was only accepted, when the higher one has expired": {
			do: func(f *latestFixture) {
				f.put(f.record(5, 0), 5)
				f.Accept(f.until(1, -minute, 2*time.Hour))
				f.now = f.start.Add(time.Hour)
			},
			wantErr: ErrExpired,
		},
		"everything has expired": {
			do: func(f *latestFixture) {
				f.put(f.record(5, 0), 5)
				f.put(f.until(1, -minute, 2*time.Hour), 6)
				f.now = f.start.Add(2 * time.Hour)
			},
			wantErr: ErrExpired,
		},
		"the same generation, written again": {
			do:   func(f *latestFixture) { f.put(f.record(1, 0), 1); f.put(f.record(1, 0), 2) },
			want: 1, wantRevision: 2,
		},
		"the same generation of a replica that lags, which does not know its longer life": {
			do:   func(f *latestFixture) { f.put(f.until(1, 0, 2*time.Hour), 2); f.put(f.record(1, 0), 1) },
			want: 1, wantRevision: 2,
		},
		"the same generation, which was published again in a recreated bucket": {
			do:   func(f *latestFixture) { f.put(f.record(1, 0), 2); f.put(f.record(1, 0), 1) },
			want: 1, wantRevision: 1,
		},
		"the same generation that was obtained later, in a recreated bucket": {
			do:   func(f *latestFixture) { f.put(f.record(1, 0), 2); f.put(f.until(1, minute, 2*minute), 1) },
			want: 1, wantRevision: 1,
		},
		"a removed record": {
			do: func(f *latestFixture) {
				f.put(f.record(1, 0), 1)
				f.apply(Event{Key: "wx1.access_token", Removed: true, Revision: 2})
			},
			want: 1, wantRevision: 1,
		},
		"a record that is accepted before the feed delivers it and the one before it": {
			do: func(f *latestFixture) {
				c := f.record(2, 0)
				c.Revision = 2
				f.Accept(c)
				f.put(f.record(1, 0), 1)
				f.put(f.record(2, 0), 2)
			},
			want: 2, wantRevision: 2,
		},
		"a forged generation, and the next refresh": {
			do: func(f *latestFixture) {
				f.put(f.record(5, 0), 5)
				f.put(f.record(messages.MaxGeneration, minute), 6)
				f.put(f.record(6, 2*minute), 7)
			},
			want: 6, wantRevision: 7,
		},
		"a forged generation, and the true record, which is preferred": {
			do: func(f *latestFixture) {
				f.put(f.record(5, 0), 5)
				forged := f.record(messages.MaxGeneration, minute)
				f.put(forged, 6)
				f.put(f.record(5, 0), 7)
				f.Prefer(Name{"wx1", messages.AccessToken}, forged.Value, 7)
			},
			want: 5, wantRevision: 7,
		},
		"a forged generation, and the true record, which is preferred before it is delivered": {
			do: func(f *latestFixture) {
				forged := f.record(messages.MaxGeneration, minute)
				f.put(forged, 6)
				f.Prefer(Name{"wx1", messages.AccessToken}, forged.Value, 8)
				f.put(f.record(4, 0), 7)
				f.put(f.record(5, 0), 8)
			},
			want: 5, wantRevision: 8,
		},
		"a record that is preferred to another value than the held one": {
			do: func(f *latestFixture) {
				f.put(f.record(5, 0), 5)
				f.put(f.record(4, -minute), 6)
				f.Prefer(Name{"wx1", messages.AccessToken}, "another value", 6)
			},
			want: 5, wantRevision: 5,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newLatestFixture(t)
			slot := f.Slot("wx1", messages.AccessToken)
			tt.do(f)
			// Get does not depend on Promote.
			for _, when := range []string{"before Promote", "after Promote"} {
				got, err := f.Get("wx1", messages.AccessToken)
				if !errors.Is(err, tt.wantErr) {
					t.Fatalf("%s: %v, want %v", when, err, tt.wantErr)
				}
				fromSlot, err := slot.Get(f.now, "wx1", messages.AccessToken)
				if !errors.Is(err, tt.wantErr) {
					t.Errorf("%s: the slot returns %v, want %v", when, err, tt.wantErr)
				}
				if got != fromSlot {
					t.Errorf("%s: Get returns %v, the slot %v", when, got, fromSlot)
				}
				if got != nil && (got.Generation != tt.want || got.Revision != tt.wantRevision) {
					t.Errorf("%s: %v, want generation %d revision %d", when, got, tt.want, tt.wantRevision)
				}
				f.Promote()
			}
		})
	}
}

func TestLatestReturnsTheChangesOfTheBucket(t *testing.T) {
	t.Parallel()
	f := newLatestFixture(t)
	record := f.record(1, 0)
	stored := record
	stored.Revision = 3
	token := Change{AppID: "wx1", Kind: messages.AccessToken}
	for _, step := range []struct {
		name  string
		event Event
		want  []Change
	}{
		{"a snapshot begins", Event{Reset: true}, []Change{{Reset: true}}},
		{
			"a record", Event{Key: "wx1.access_token", Value: encode(t, record), Revision: 3},
			[]Change{{AppID: "wx1", Kind: messages.AccessToken, Record: &stored, Revision: 3}},
		},
		{"a lease", Event{Key: "lease.wx1.access_token", Revision: 4}, nil},
		{"another key", Event{Key: "wx1.nonsense", Revision: 4}, nil},
		{"the snapshot is complete", Event{Ready: true}, []Change{{Ready: true}}},
		{"the feed works", Event{Up: true}, nil},
		{"the feed does not work", Event{Down: errDisconnected}, nil},
		{"a test has changed the time", Event{Tick: true}, nil},
		{
			"the record is removed", Event{Key: "wx1.access_token", Removed: true, Revision: 5},
			[]Change{{AppID: "wx1", Kind: messages.AccessToken, Revision: 5}},
		},
		{
			"the record is written again", Event{Key: "wx1.access_token", Value: encode(t, record), Revision: 3},
			[]Change{{AppID: "wx1", Kind: messages.AccessToken, Record: &stored, Revision: 3}},
		},
		{"the next snapshot begins", Event{Reset: true}, []Change{{Reset: true}}},
		{"the next snapshot lacks the record", Event{Ready: true}, []Change{token, {Ready: true}}},
		{"a third snapshot begins", Event{Reset: true}, []Change{{Reset: true}}},
		{"the loss is returned only once", Event{Ready: true}, []Change{{Ready: true}}},
	} {
		changes, _ := f.apply(step.event)
		if diff := cmp.Diff(step.want, changes); diff != "" {
			t.Errorf("%s: %s", step.name, diff)
		}
	}
}

// Anybody with write access can store anything.
func TestLatestTreatsAnInvalidRecordAsRemoved(t *testing.T) {
	t.Parallel()
	f := newLatestFixture(t)
	f.put(f.record(1, 0), 1)
	changes, replaced, err := f.Apply(Event{Key: "wx1.access_token", Value: []byte("{"), Revision: 2})
	if !errors.Is(err, messages.ErrInvalidCredential) {
		t.Errorf("%v, want ErrInvalidCredential", err)
	}
	if diff := cmp.Diff([]Change{{AppID: "wx1", Kind: messages.AccessToken, Revision: 2}}, changes); diff != "" {
		t.Error(diff)
	}
	if len(replaced) != 0 {
		t.Errorf("%v were replaced", replaced)
	}
	if c, err := f.Get("wx1", messages.AccessToken); err != nil || c.Generation != 1 {
		t.Errorf("the current credential is %v, %v; want generation 1", c, err)
	}
}

// A record with a time or a generation that no worker writes would be preferred to every true one.
func TestLatestIgnoresARecordThatNoWorkerCanHaveWritten(t *testing.T) {
	t.Parallel()
	f := newLatestFixture(t)
	f.put(f.record(1, 0), 1)
	future, ahead := f.record(2, 10*24*time.Hour), f.record(2, messages.MaxAhead+time.Second)
	absurd := f.record(math.MaxUint64, 0)
	for name, c := range map[string]messages.Credential{
		"obtained in ten days": future, "obtained too far ahead": ahead, "generation 2^64-1": absurd,
	} {
		changes, replaced, err := f.Apply(Event{Key: "wx1.access_token", Value: encode(t, c), Revision: 2})
		if !errors.Is(err, messages.ErrInvalidCredential) {
			t.Errorf("%s: %v, want ErrInvalidCredential", name, err)
		}
		if len(replaced) != 0 || changes[0].Record != nil {
			t.Errorf("%s: %v, %v; want that it counts as removed", name, changes, replaced)
		}
	}
	f.put(f.record(2, time.Minute), 3)
	if c, err := f.Get("wx1", messages.AccessToken); err != nil || c.Revision != 3 {
		t.Errorf("after the next refresh, the current credential is %v, %v", c, err)
	}
}

func TestLatestNamesTheCredentialsThatWereReplaced(t *testing.T) {
	t.Parallel()
	f := newLatestFixture(t)
	token := []Name{{"wx1", messages.AccessToken}}
	expect := func(when string, want, got []Name) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", when, diff)
		}
	}
	_, replaced := f.put(f.record(5, 0), 5)
	expect("the first record", token, replaced)
	_, replaced = f.put(f.until(4, -time.Minute, 2*time.Hour), 6)
	expect("a lower generation", nil, replaced)
	expect("Promote, while the higher generation is valid", nil, f.Promote())
	f.now = f.start.Add(time.Hour)
	expect("Promote, when the higher generation has expired", token, f.Promote())
	expect("Promote again", nil, f.Promote())
	expect("an accepted record", token, f.Accept(f.record(6, time.Minute)))
	expect("an accepted record of a lower generation", nil, f.Accept(f.record(3, -time.Minute)))
}

func TestLatestKnowsTheLastCredentialAlsoWhenItHasExpired(t *testing.T) {
	t.Parallel()
	f := newLatestFixture(t)
	if c := f.Held("wx1", messages.AccessToken); c != nil {
		t.Errorf("%v is held before anything was seen", c)
	}
	if q := f.Slot("wx1", messages.AccessToken).Quick(); q != nil {
		t.Errorf("%v is held before anything was seen", q.Ends)
	}
	f.put(f.record(1, 0), 1)
	f.now = f.start.Add(2 * time.Hour)
	c := f.Held("wx1", messages.AccessToken)
	if c == nil || c.Generation != 1 {
		t.Fatalf("%v is held, want generation 1", c)
	}
	slot := f.Slot("wx1", messages.AccessToken)
	if slot.Held() != c {
		t.Errorf("the slot holds %v, want %v", slot.Held(), c)
	}
	if diff := cmp.Diff(&Quick{c.Value, c.ExpiresAt.UnixNano()}, slot.Quick()); diff != "" {
		t.Error(diff)
	}
}

func TestLatestVisitsTheCredentialsOfAllAccounts(t *testing.T) {
	t.Parallel()
	f := newLatestFixture(t)
	for _, appid := range []string{"wx2", "wx1"} {
		c := f.record(1, 0)
		c.AppID = appid
		f.Accept(c)
	}
	var held []string
	visited := 0
	f.Each(func(n Name, s *Slot) {
		visited++
		if s.Held() != nil {
			held = append(held, messages.Key(n.AppID, n.Kind))
		}
	})
	slices.Sort(held)
	if diff := cmp.Diff([]string{"wx1.access_token", "wx2.access_token"}, held); diff != "" {
		t.Error(diff)
	}
	if want := 2 * len(messages.Kinds); visited != want {
		t.Errorf("%d credentials were visited, want %d", visited, want)
	}
}

// The race detector checks the rest.
func TestReadersOfLatestNeverSeeAGap(t *testing.T) {
	t.Parallel()
	f := newLatestFixture(t)
	f.put(f.record(1, 0), 1)
	slot := f.Slot("wx1", messages.AccessToken)
	written := make(chan struct{})
	var reading sync.WaitGroup
	for range 2 {
		reading.Go(func() {
			for last := uint64(0); ; {
				c, err := slot.Get(f.now, "wx1", messages.AccessToken)
				if err != nil {
					t.Error(err)
					return
				}
				if c.Generation < last {
					t.Errorf("generation %d after %d", c.Generation, last)
				}
				last = c.Generation
				select {
				case <-written:
					return
				default:
				}
			}
		})
	}
	for generation := uint64(2); generation <= 200; generation++ {
		f.put(f.record(generation, 0), generation)
		f.Promote()
	}
	close(written)
	reading.Wait()
}
