package wechattest

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Simulator is a simulated WeChat: an http.Handler of its API, and methods that
// do what happens behind that API in the real one. Safe for concurrent use.
type Simulator struct {
	cfg      Config // with its defaults
	ownClock bool   // it has a Now of its own, which net/http does not know
	allow    []netip.Prefix

	mu       sync.RWMutex // guards accounts
	accounts map[string]*account

	issued   registry
	codes    codes
	faults   faults
	stats    stats
	notFound atomic.Int64

	release     chan struct{} // closed by Release
	releaseOnce sync.Once
}

// New returns a simulation. It panics where cfg.Validate returns an error.
func New(cfg Config) *Simulator {
	if err := cfg.Validate(); err != nil {
		panic("wechattest: " + err.Error())
	}
	allow, _ := parseAllowIPs(cfg.AllowIPs) // Validate has read it
	s := &Simulator{
		cfg:      cfg.withDefaults(),
		ownClock: cfg.Now != nil,
		allow:    allow,
		accounts: make(map[string]*account, len(cfg.Accounts)),
		release:  make(chan struct{}),
	}
	s.AddCode("", sampleOpenID, sampleTicket, []byte(sampleReply))
	for _, a := range cfg.Accounts {
		s.AddAccount(a)
	}
	return s
}

// now is the simulation's time in nanoseconds since 1970. Lives are kept as such
// numbers because a token's end is read on every call, without a lock.
func (s *Simulator) now() int64 { return s.cfg.Now().UnixNano() }

// ServeHTTP answers one call of the WeChat API.
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ep, ok := endpointOf(r.URL.Path)
	if !ok {
		s.notFound.Add(1)
		http.NotFound(w, r)
		return
	}
	if s.ownClock {
		w.Header().Set("Date", s.cfg.Now().UTC().Format(http.TimeFormat))
	}
	c := s.identify(ep, r)
	count := c.stats.arrive(ep)
	defer count.leave()

	if f := s.faults.take(c.appid, ep); f != nil {
		s.serveFault(w, r, c, f, count)
		return
	}
	a := s.answer(c)
	if !s.wait(r.Context(), s.cfg.Latency) {
		panic(http.ErrAbortHandler)
	}
	count.answered(a.errcode)
	// Left before the answer is on its way: a caller who asks again as soon as he
	// has it must not be seen as two at once.
	count.leave()
	write(w, http.StatusOK, contentType, a.body)
}

// Release ends every wait: hung and delayed calls are dropped, now and from now
// on. For shutting down a server that must not wait for them.
func (s *Simulator) Release() { s.releaseOnce.Do(func() { close(s.release) }) }

// wait reports whether d has passed; false if the caller went away or Release
// was called. A negative d waits for one of these for ever.
func (s *Simulator) wait(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return true
	}
	var passed <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		passed = t.C
	}
	select {
	case <-passed:
		return true
	case <-ctx.Done():
		return false
	case <-s.release:
		return false
	}
}
