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
		if c.index != want || c.probe {
			t.Fatalf("got %+v, want host %d", c, want)
		}
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
	if c := h.pick(noon); c.index != 1 {
		t.Errorf("got host %d, want 1", c.index)
	}
	// Once round the ring: the late failures were seen at the same index, but not now.
	h.failed(h.pick(noon), noon)
	h.failed(h.pick(noon), noon)
	for _, c := range choices[90:] {
		h.failed(c, noon)
	}
	if c := h.pick(noon); c.index != 0 {
		t.Errorf("got host %d, want 0", c.index)
	}
}

func TestAfterTheCoolDownOneCallTriesTheFirstHost(t *testing.T) {
	t.Parallel()
	h := newHosts(2)
	h.failed(h.pick(noon), noon)
	if c := h.pick(noon.Add(coolDown - 1)); c.index != 1 || c.probe {
		t.Errorf("before the cool-down: got %+v", c)
	}
	now := noon.Add(coolDown)
	probe := h.pick(now)
	if probe.index != 0 || !probe.probe {
		t.Fatalf("got %+v, want a probe", probe)
	}
	if c := h.pick(now); c.index != 1 || c.probe {
		t.Errorf("beside the probe: got %+v", c)
	}
	h.failed(probe, now)
	if c := h.pick(now.Add(coolDown - 1)); c.index != 1 {
		t.Errorf("after the probe failed: got %+v", c)
	}
	now = now.Add(coolDown)
	probe = h.pick(now)
	h.served(probe)
	if c := h.pick(now); c.index != 0 || c.probe {
		t.Errorf("after the probe served: got %+v", c)
	}
}

func TestOneProbeAmongMany(t *testing.T) {
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
	probes := 0
	for c := range picked {
		if c.probe {
			probes++
		} else if c.index != 1 {
			t.Errorf("got %+v", c)
		}
	}
	if probes != 1 {
		t.Errorf("%d probes, want 1", probes)
	}
}

func TestAnotherVisitsEachHostOnce(t *testing.T) {
	t.Parallel()
	h := newHosts(3)
	h.failed(h.pick(noon), noon)
	tried := []int{0}
	for _, want := range []int{1, 2} {
		c, ok := h.another(tried)
		if !ok || c.index != want {
			t.Fatalf("got %+v, want host %d", c, want)
		}
		tried = append(tried, c.index)
	}
	if _, ok := h.another(tried); ok {
		t.Error("a fourth of three hosts")
	}
}
