package main

import (
	"slices"
	"testing"
	"time"
)

// A margin in whole seconds, and a setting that wxkeeper accepts.
func TestMarginsOfAProfileAreValid(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]profile{"full": full, "smoke": smoke} {
		if ahead := scaled(10*time.Minute, p.lifeScale); ahead < time.Second {
			t.Errorf("%s: row (b): wxkeeper renews %s ahead, and its least is 1 s", name, ahead)
		}
		if limit := life(p.faultScale) / 3; p.ahead > limit {
			t.Errorf("%s: rows (d) and (e): %s ahead is more than a third of a life, %s", name, p.ahead, limit)
		}
		for _, scale := range []float64{p.lifeScale, p.faultScale} {
			if l := life(scale); l%time.Second != 0 {
				t.Errorf("%s: a life of %s is not in whole seconds", name, l)
			}
		}
	}
}

// The fault of row (e) is a busy WeChat, not a token that nobody could have renewed in time.
func TestBusyTimeEndsBeforeATokenThatIsRenewedAhead(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]profile{"full": full, "smoke": smoke} {
		for _, s := range systems {
			renews := s.renewsAt(p.faultScale, p.ahead)
			if renews <= 0 || renews >= life(p.faultScale) {
				t.Errorf("%s: %s renews at %s of %s", name, s.name, renews, life(p.faultScale))
			}
			if end := renews - p.busy/6 + p.busy; !s.fast() && end >= life(p.faultScale) {
				t.Errorf("%s: %s: WeChat is busy until %s, and the token ends at %s", name, s.name, end, life(p.faultScale))
			}
		}
	}
}

func TestMomentsAreTheSameForEachSystemAndDifferInEachRepeat(t *testing.T) {
	t.Parallel()
	r := &runner{profile: full, seed: 7}
	first := r.moments(0, 5)
	if !slices.Equal(first, r.moments(0, 5)) {
		t.Error("two calls gave different moments")
	}
	if slices.Equal(first, r.moments(1, 5)) {
		t.Error("two repeats have the same moments")
	}
	if len(first) != 5 || !slices.IsSorted(first) || first[0] < time.Second || first[4] >= full.killWithin {
		t.Errorf("got %v", first)
	}
}

func TestCommandLeavesOutThePathsOfTheMakefile(t *testing.T) {
	t.Parallel()
	got := ownFlags([]string{"-wxkeeper", "bin/wxkeeper", "-rows", "ag", "-nats-server", "x", "-smoke"})
	if got != "-rows ag -smoke" {
		t.Errorf("got %q", got)
	}
}
