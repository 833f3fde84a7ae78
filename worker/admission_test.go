package worker

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/wxkeeper/wxkeeper/messages"
)

// accountsOf are accounts with these AppIDs.
func accountsOf(tb testing.TB, appids ...string) *accounts {
	tb.Helper()
	var list []Account
	for _, id := range appids {
		list = append(list, Account{AppID: id, Secret: secret})
	}
	as := new(accounts)
	if err := as.set(list); err != nil {
		tb.Fatal(err)
	}
	return as
}

// Whatever accounts do, in whatever order: the limit holds, nothing is lost, and no account takes the last place from
// an account that has none.
func TestPropertyAdmissionKeepsItsLimitAndLeavesRoomForEveryAccount(t *testing.T) {
	t.Parallel()
	ids := []string{"wx0", "wx1", "wx2", "wx3", "wx4", unnamed}
	as := accountsOf(t, ids[:5]...)
	rapid.Check(t, func(t *rapid.T) {
		a := newAdmission(rapid.IntRange(2, 40).Draw(t, "limit"), "requests", as)
		own, all := make(map[string]int), 0
		id := rapid.SampledFrom(ids)
		entered := func(id string, err error) {
			free := a.limit - all
			switch {
			case err == nil && free <= 0:
				t.Fatalf("%q was admitted beyond the limit", id)
			case err == nil && own[id] > 0 && free == 1:
				t.Fatalf("%q has %d places, and got the last one", id, own[id])
			case err == nil:
				own[id]++
				all++
			case symbol(err) != messages.Overloaded:
				t.Fatalf("the error of a full worker is %v", err)
			case own[id] == 0 && free > 0:
				t.Fatalf("%q has no place, and got none of %d that are free", id, free)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				id := id.Draw(t, "account")
				entered(id, a.enter(id))
			},
			"leave": func(t *rapid.T) {
				id := id.Draw(t, "account")
				if own[id] == 0 {
					t.Skip("it has no place")
				}
				a.leave(id)
				own[id]--
				all--
			},
			"move": func(t *rapid.T) {
				to := id.Draw(t, "account")
				if own[unnamed] == 0 {
					t.Skip("no request is unnamed")
				}
				own[unnamed]--
				all--
				entered(to, a.move(unnamed, to))
			},
			"": func(t *rapid.T) {
				if n := a.inProgress(); n != all || n > a.limit {
					t.Fatalf("%d places of %d are taken, want %d", n, a.limit, all)
				}
			},
		})
		for id, n := range own {
			for range n {
				a.leave(id)
			}
		}
		if a.all != 0 || len(a.of) != 0 {
			t.Fatalf("after the last request, %d places are taken, and %v is remembered", a.all, a.of)
		}
	})
}

func TestBusyAccountGetsThreeQuartersAndTheNextThreeQuartersOfTheRest(t *testing.T) {
	t.Parallel()
	a := newAdmission(256, "requests", accountsOf(t, "wx1", "wx2", "wx3"))
	fill := func(id string) (n int) {
		for a.enter(id) == nil {
			n++
		}
		return n
	}
	checkDiff(t, "the places of three accounts", []int{fill("wx1"), fill("wx2"), fill("wx3")}, []int{192, 48, 12})
	// As the first account's requests end, the others get more, until all have the same.
	for range 192 {
		a.leave("wx1")
		fill("wx3")
		fill("wx2")
		fill("wx1")
	}
	least, most := a.limit, 0
	for _, n := range a.of {
		least, most = min(least, n), max(most, n)
	}
	if most-least > 10 { // a place is refused or not by what is free at that moment
		t.Errorf("the accounts have %v places, want about the same", a.of)
	}
}

func TestAccountAloneInItsWorkerGetsEveryPlace(t *testing.T) {
	t.Parallel()
	a := newAdmission(40, "requests", accountsOf(t, "wx1"))
	for i := range a.limit {
		if err := a.enter("wx1"); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	checkSymbol(t, "one more", a.enter("wx1"), messages.Overloaded)
	r := newRates(accountsOf(t, "wx1"))
	for range 2 * requestBurst {
		if err := r.charge("wx1", 0); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRateOfEachAccountIsLimitedByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		as := accountsOf(t, "wx1", "wx2")
		r := newRates(as)
		spend := func(id string, size int) (n int, last error) {
			for ; last == nil; n++ {
				last = r.charge(id, size)
			}
			return n - 1, last
		}
		n, err := spend("wx1", 200)
		checkDiff(t, "requests at once", n, requestBurst)
		e := refusal(t, "one more", err, messages.Throttled)
		time.Sleep(time.Duration(e.RetryAfterMS) * time.Millisecond) //nolint:forbidigo // virtual time
		if err := r.charge("wx1", 200); err != nil {
			t.Errorf("after its retry_after: %v", err)
		}
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		if n, _ = spend("wx1", 200); n < requestRate || n > requestRate+5 {
			t.Errorf("%d requests after a second, want %d", n, requestRate)
		}
		n, _ = spend("wx2", 9*requestUnit)
		checkDiff(t, "large requests of another account", n, requestBurst/10)

		// Only accounts that the worker keeps are remembered.
		for i := range 100 {
			id := fmt.Sprint("new", i)
			if err := as.set([]Account{{AppID: id, Secret: secret}, {AppID: "wx2", Secret: secret}}); err != nil {
				t.Fatal(err)
			}
			if err := r.charge(id, 0); err != nil {
				t.Error(err)
			}
		}
		if n := len(r.paid); n > 2 {
			t.Errorf("%d accounts are remembered, and the worker keeps 2", n)
		}
	})
}
