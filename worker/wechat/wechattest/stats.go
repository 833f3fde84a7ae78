package wechattest

import (
	"maps"
	"sync"
	"sync/atomic"
)

// UnknownAppID is where a call is counted that cannot be told to be of any account:
// without appid, or with an access_token that was never issued.
const UnknownAppID = "(unknown)"

// maxStrangers bounds the appids that are counted by name though no such account
// was ever added; the rest count as UnknownAppID.
const maxStrangers = 10_000

// maxAppID bounds the length of such an appid; WeChat's have 18 characters.
const maxAppID = 64

// stats are the counters of all accounts.
type stats struct {
	mu        sync.RWMutex
	byAppID   map[string]*accountStats
	strangers int
}

type accountStats [endpoints]endpointStats

// endpointStats are the counters of one account at one endpoint.
type endpointStats struct {
	calls, inFlight, maxInFlight, minted, foreign, faults, successes atomic.Int64

	mu       sync.Mutex
	refusals map[int]int // by errcode
}

// of returns the counters of an appid, new ones if need be.
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
		if s.strangers >= maxStrangers || len(appid) > maxAppID {
			appid = UnknownAppID
		} else if s.byAppID[appid] == nil { // another call may have made it by now
			s.strangers++
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

// counting is one call while it is in the house.
type counting struct {
	st   *endpointStats
	left bool
}

func (a *accountStats) arrive(ep endpoint) *counting {
	st := &a[ep]
	st.calls.Add(1)
	n := st.inFlight.Add(1)
	for {
		most := st.maxInFlight.Load()
		if n <= most || st.maxInFlight.CompareAndSwap(most, n) {
			return &counting{st: st}
		}
	}
}

// leave may be called twice.
func (c *counting) leave() {
	if !c.left {
		c.left = true
		c.st.inFlight.Add(-1)
	}
}

func (c *counting) answered(errcode int) {
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

// each visits the counters of one appid or, for "", of all, at one endpoint or, for
// "", at all.
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

// Calls is how many requests arrived, whatever became of them; "" means all
// accounts, or all endpoints. A request counts for the appid it names, or that its
// token was issued to, or UnknownAppID. Requests to unknown paths count in
// Snapshot.NotFound.
func (s *Simulator) Calls(appid, endpoint string) int {
	var n int64
	s.each(appid, endpoint, func(st *endpointStats) { n += st.calls.Load() })
	return int(n)
}

// MaxConcurrent is the most calls that one account had at one endpoint at the same
// time; with "", the highest such number of any account, or any endpoint. A call
// ends when its answer is sent off.
func (s *Simulator) MaxConcurrent(appid, endpoint string) int {
	var n int64
	s.each(appid, endpoint, func(st *endpointStats) { n = max(n, st.maxInFlight.Load()) })
	return int(n)
}

// Minted is how many tokens or tickets were issued anew to callers of the API; ""
// means all.
func (s *Simulator) Minted(appid, endpoint string) int {
	var n int64
	s.each(appid, endpoint, func(st *endpointStats) { n += st.minted.Load() })
	return int(n)
}

// Snapshot is all counters at one time. It holds no secret and no token.
type Snapshot struct {
	// Accounts is by appid and endpoint; an endpoint without calls is left out.
	Accounts map[string]map[string]Counters `json:"accounts"`
	NotFound int                            `json:"not_found"` // requests to unknown paths
}

// Counters are those of one account at one endpoint.
type Counters struct {
	Calls         int         `json:"calls"`          // requests that arrived
	MaxConcurrent int         `json:"max_concurrent"` // the most at the same time
	Minted        int         `json:"minted"`         // issued anew
	Foreign       int         `json:"foreign"`        // issued by ForeignRefresh
	Faults        int         `json:"faults"`         // calls that met a Fault
	Errcodes      map[int]int `json:"errcodes"`       // what callers were told; 0 is success
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

// ResetCounters starts all counters anew. Quotas, tokens and faults stay as they
// are; a call in flight counts as one at the same time.
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
