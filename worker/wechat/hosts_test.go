package wechat

import (
	"sync"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestAFailureMovesToTheNextHost(t *testing.T) {
	t.Parallel()
	h := newHosts(3)
	for _, want := range []int{0, 1, 2, 0} {
		c := h.pick(noon)
		equal(t, "host", c.index, want)
		equal(t, "isReturn", c.isReturn, false)
		h.failed(c, noon)
	}
}

func TestFailuresTogetherMoveOnce(t *testing.T) {
	t.Parallel()
	h := newHosts(3)
	var choices []choice
	for range 100 {
		choices = append(choices, h.pick(noon))
	}
	var wg sync.WaitGroup
	for _, c := range choices[:90] {
		wg.Go(func() { h.failed(c, noon) })
	}
	wg.Wait()
	equal(t, "host after the failures", h.pick(noon).index, 1)
	// After a full round the index is the same, but the late failures belong to an earlier position.
	h.failed(h.pick(noon), noon)
	h.failed(h.pick(noon), noon)
	for _, c := range choices[90:] {
		h.failed(c, noon)
	}
	equal(t, "host after late failures", h.pick(noon).index, 0)
}

func TestAfterTheCoolDownOneCallTriesTheFirstHost(t *testing.T) {
	t.Parallel()
	h := newHosts(2)
	h.failed(h.pick(noon), noon)
	expect := func(when string, c choice, index int, isReturn bool) {
		t.Helper()
		equal(t, "host "+when, c.index, index)
		equal(t, "isReturn "+when, c.isReturn, isReturn)
	}
	expect("before the cool-down", h.pick(noon.Add(coolDown-1)), 1, false)
	now := noon.Add(coolDown)
	first := h.pick(now)
	expect("after the cool-down", first, 0, true)
	expect("of a second call", h.pick(now), 1, false)
	h.failed(first, now)
	expect("after the first host failed again", h.pick(now.Add(coolDown-1)), 1, false)
	now = now.Add(coolDown)
	first = h.pick(now)
	h.served(first)
	expect("after the first host served", h.pick(now), 0, false)
}

func TestOnlyOneOfManyCallsTriesTheFirstHost(t *testing.T) {
	t.Parallel()
	h := newHosts(2)
	h.failed(h.pick(noon), noon)
	picked := make(chan choice, 100)
	var wg sync.WaitGroup
	for range cap(picked) {
		wg.Go(func() { picked <- h.pick(noon.Add(coolDown)) })
	}
	wg.Wait()
	close(picked)
	returns := 0
	for c := range picked {
		if c.isReturn {
			returns++
		} else {
			equal(t, "host of the other calls", c.index, 1)
		}
	}
	equal(t, "calls that try the first host", returns, 1)
}

func TestAnotherVisitsEachHostOnce(t *testing.T) {
	t.Parallel()
	h := newHosts(3)
	h.failed(h.pick(noon), noon)
	tried := []int{0}
	for _, want := range []int{1, 2} {
		c, ok := h.another(tried)
		if !ok {
			t.Fatalf("no host after %v", tried)
		}
		equal(t, "host", c.index, want)
		tried = append(tried, c.index)
	}
	if _, ok := h.another(tried); ok {
		t.Error("there is a fourth host among three")
	}
}
