package wechattest

import (
	"maps"
	"sync"
	"sync/atomic"
)

// UnknownAppID is the appid under which calls without an account are counted: calls without appid, or with an
// access_token that was never issued.
const UnknownAppID = "(unknown)"

// maxUnknown limits how many appids without an account are counted by name. Further ones count as UnknownAppID.
const maxUnknown = 10_000

// maxAppID limits the length of an appid without an account that is counted by name. WeChat's have 18 characters.
const maxAppID = 64

// stats are the counters of all accounts.
type stats struct {
	mu      sync.RWMutex
	byAppID map[string]*accountStats
	unknown int // appids without an account
}

// accountStats are the counters of one account by endpoint.
type accountStats [endpoints]endpointStats

// endpointStats are the counters of one account at one endpoint.
type endpointStats struct {
	calls, inFlight, maxInFlight, minted, foreign, faults, successes atomic.Int64

	mu       sync.Mutex
	refusals map[int]int // by errcode
}

// of returns the counters of an appid. It creates them if they do not exist.
func (s *stats) of(appid string, known bool) *accountStats {
	s.mu.RLock()
	a := s.byAppID[appid]
	s.mu.RUnlock()
	if a != nil {
		return a
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !known && appid != UnknownAppID {
		if s.unknown >= maxUnknown || len(appid) > maxAppID || looksLikeSecret.MatchString(appid) {
			appid = UnknownAppID
		} else if s.byAppID[appid] == nil { // otherwise another call has just created them
			s.unknown++
		}
	}
	if a = s.byAppID[appid]; a == nil {
		if s.byAppID == nil {
			s.byAppID = make(map[string]*accountStats)
		}
		a = new(accountStats)
		s.byAppID[appid] = a
	}
	return a
}

// openCall is one call from its arrival to its end.
type openCall struct {
	st    *endpointStats
	ended bool
}

func (a *accountStats) begin(ep endpoint) *openCall {
	st := &a[ep]
	st.calls.Add(1)
	n := st.inFlight.Add(1)
	for {
		most := st.maxInFlight.Load()
		if n <= most || st.maxInFlight.CompareAndSwap(most, n) {
			return &openCall{st: st}
		}
	}
}

// end may be called twice.
func (c *openCall) end() {
	if !c.ended {
		c.ended = true
		c.st.inFlight.Add(-1)
	}
}

func (c *openCall) answered(errcode int) {
	if errcode == 0 {
		c.st.successes.Add(1)
		return
	}
	c.st.mu.Lock()
	defer c.st.mu.Unlock()
	if c.st.refusals == nil {
		c.st.refusals = make(map[int]int)
	}
	c.st.refusals[errcode]++
}

// each visits the counters of one appid at one endpoint. "" stands for all appids or all endpoints.
func (s *Simulator) each(appid, endpoint string, visit func(*endpointStats)) {
	s.stats.mu.RLock()
	defer s.stats.mu.RUnlock()
	for id, a := range s.stats.byAppID {
		if appid != "" && appid != id {
			continue
		}
		for ep, name := range endpointNames {
			if endpoint == "" || endpoint == name {
				visit(&a[ep])
			}
		}
	}
}

// Calls returns how many requests arrived, whatever their result. "" means all accounts or all endpoints. A
// request counts for the appid that it names or to which its token was issued, or for UnknownAppID. Requests
// to unknown paths count in Snapshot.NotFound.
func (s *Simulator) Calls(appid, endpoint string) int {
	var n int64
	s.each(appid, endpoint, func(st *endpointStats) { n += st.calls.Load() })
	return int(n)
}

// MaxConcurrent returns the largest number of concurrent calls of one account at one endpoint. With "" it
// returns the largest of these numbers over all accounts or endpoints. A call ends when its answer is
// written.
func (s *Simulator) MaxConcurrent(appid, endpoint string) int {
	var n int64
	s.each(appid, endpoint, func(st *endpointStats) { n = max(n, st.maxInFlight.Load()) })
	return int(n)
}

// Minted returns how many new tokens or tickets callers of the API received. "" means all accounts or all
// endpoints.
func (s *Simulator) Minted(appid, endpoint string) int {
	var n int64
	s.each(appid, endpoint, func(st *endpointStats) { n += st.minted.Load() })
	return int(n)
}

// Snapshot has all counters at one time. It contains no secret and no token.
type Snapshot struct {
	// Accounts has the counters by appid and endpoint, without endpoints that have no calls.
	Accounts map[string]map[string]Counters `json:"accounts"`
	NotFound int                            `json:"not_found"` // requests to unknown paths
}

// Counters are the counters of one account at one endpoint.
type Counters struct {
	Calls         int         `json:"calls"`          // requests that arrived
	MaxConcurrent int         `json:"max_concurrent"` // the largest number of concurrent calls
	Minted        int         `json:"minted"`         // new tokens or tickets
	Foreign       int         `json:"foreign"`        // new tokens of ForeignRefresh
	Faults        int         `json:"faults"`         // calls that a Fault affected
	Errcodes      map[int]int `json:"errcodes"`       // answers by errcode; 0 is a success
}

// Snapshot returns a copy of all counters.
func (s *Simulator) Snapshot() Snapshot {
	out := Snapshot{Accounts: make(map[string]map[string]Counters), NotFound: int(s.notFound.Load())}
	s.stats.mu.RLock()
	defer s.stats.mu.RUnlock()
	for id, a := range s.stats.byAppID {
		byEndpoint := make(map[string]Counters)
		for ep, name := range endpointNames {
			if c := a[ep].counters(); c.Calls > 0 || c.Foreign > 0 {
				byEndpoint[name] = c
			}
		}
		if len(byEndpoint) > 0 {
			out.Accounts[id] = byEndpoint
		}
	}
	return out
}

func (st *endpointStats) counters() Counters {
	c := Counters{
		Calls:         int(st.calls.Load()),
		MaxConcurrent: int(st.maxInFlight.Load()),
		Minted:        int(st.minted.Load()),
		Foreign:       int(st.foreign.Load()),
		Faults:        int(st.faults.Load()),
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	c.Errcodes = make(map[int]int, len(st.refusals)+1)
	maps.Copy(c.Errcodes, st.refusals)
	if n := st.successes.Load(); n > 0 {
		c.Errcodes[0] = int(n)
	}
	return c
}

// ResetCounters sets all counters to zero, except that calls in flight still count as concurrent. Quotas,
// tokens and faults do not change.
func (s *Simulator) ResetCounters() {
	s.notFound.Store(0)
	s.each("", "", func(st *endpointStats) {
		for _, n := range []*atomic.Int64{&st.calls, &st.minted, &st.foreign, &st.faults, &st.successes} {
			n.Store(0)
		}
		st.maxInFlight.Store(st.inFlight.Load())
		st.mu.Lock()
		st.refusals = nil
		st.mu.Unlock()
	})
}
