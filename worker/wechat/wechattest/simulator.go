package wechattest

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Simulator is a simulated WeChat: an http.Handler of WeChat's API, and methods for what happens behind that
// API. It is safe for concurrent use.
type Simulator struct {
	cfg      Config // with its defaults
	ownClock bool   // Config.Now is set, so net/http does not know the time
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

// New returns a simulation. It panics if cfg.Validate returns an error.
func New(cfg Config) *Simulator {
	if err := cfg.Validate(); err != nil {
		panic("wechattest: " + err.Error())
	}
	allow, _ := parseAllowIPs(cfg.AllowIPs) // Validate has checked it
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

// now returns the simulation's time in nanoseconds since 1970. Lives are such numbers too, because every call
// reads the end of a token without a lock.
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
	open := c.stats.begin(ep)
	defer open.end()

	if f := s.faults.take(c.appid, ep); f != nil {
		s.serveFault(w, r, c, f, open)
		return
	}
	a := s.answer(c)
	if !s.wait(r.Context(), s.cfg.Latency) {
		panic(http.ErrAbortHandler)
	}
	open.answered(a.errcode)
	// The call ends before the answer is written: a caller that sends its next request right after the answer
	// must not count as two concurrent calls.
	open.end()
	write(w, http.StatusOK, contentType, a.body)
}

// Release drops all calls that hang or are delayed, now and in the future. Use it to shut down a server that
// must not wait for such calls.
func (s *Simulator) Release() { s.releaseOnce.Do(func() { close(s.release) }) }

// wait waits for d. It returns false as soon as the caller goes away or Release is called. A negative d has no end.
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
