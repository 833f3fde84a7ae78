package wechattest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Fault is something that goes wrong. The oldest fault that matches a call strikes
// it, and no other. What it does, in this order: wait Delay, Hang or Drop, answer
// with Errcode, Status and Body. One that only delays lets the true answer through.
//
// In JSON the names are appid, endpoint, times, errcode, errmsg, status, body,
// delay_ms, hang, drop, after.
type Fault struct {
	AppID    string // "": any
	Endpoint string // token, stable_token, getticket, tickettocode, get_api_domain_ip; "": any
	Times    int    // how many calls it strikes. 0: until ClearFaults

	Errcode int    // refuse with it
	Errmsg  string // its text; "": WeChat's. A rid is put at its end if there is none
	Status  int    // HTTP status, 200 to 599; alone, with the page of a gateway as body. 0: 200

	// Body spoils the answer:
	//
	//	empty              nothing
	//	truncated          the first half of the answer, sent as if it were all
	//	cut                the same, but the connection ends where more was promised
	//	html               a web page
	//	binary             bytes that are no text
	//	huge               the answer, in more than 1 MiB
	//	wrong_type         expires_in as a string; code as a number, ip_list as a string
	//	short_life         expires_in 1
	//	zero_life          expires_in 0
	//	no_value           without the token, ticket, code or ip_list
	//	empty_value        with an empty one
	//	long_value         with one of more than 2 KiB
	//	unprintable_value  with control characters in it
	//	raw:…              what follows the colon
	//
	// Without After the value that is spoiled is one that WeChat never issued.
	Body string

	Delay time.Duration // wait first, in real time; JSON: delay_ms
	Hang  bool          // never answer; until the caller goes away or the server closes
	Drop  bool          // close the connection without an answer

	// After lets the call take effect (mint, count in a quota) before the fault hides
	// the answer, as when an answer is lost on its way. Otherwise it never reached
	// WeChat.
	After bool
}

var bodies = []string{
	"empty", "truncated", "cut", "html", "binary", "huge", "wrong_type", "short_life", "zero_life",
	"no_value", "empty_value", "long_value", "unprintable_value",
}

const rawBody = "raw:"

func (f Fault) validate() error {
	switch {
	case f.Endpoint != "" && !slices.Contains(endpointNames[:], f.Endpoint):
		return fmt.Errorf("endpoint %q is none of %s", f.Endpoint, strings.Join(endpointNames[:], ", "))
	case f.Times < 0:
		return fmt.Errorf("times %d is negative", f.Times)
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("status %d is not 200 to 599", f.Status)
	case f.Body != "" && !strings.HasPrefix(f.Body, rawBody) && !slices.Contains(bodies, f.Body):
		return fmt.Errorf("body %q is none of %s, raw:…", f.Body, strings.Join(bodies, ", "))
	case f.Delay < 0:
		return errors.New("delay is negative")
	case f.Errmsg != "" && f.Errcode == 0:
		return errors.New("errmsg without errcode")
	case f.Hang && f.Drop:
		return errors.New("hang and drop exclude each other")
	case !f.hides() && f.Delay == 0:
		return errors.New("this fault does nothing: it needs errcode, status, body, delay_ms, hang or drop")
	}
	return nil
}

// hides says whether the caller does not see the true answer.
func (f Fault) hides() bool {
	return f.Hang || f.Drop || f.Errcode != 0 || f.Status != 0 || f.Body != ""
}

// Inject arms a fault. It panics if the fault makes no sense.
func (s *Simulator) Inject(f Fault) {
	if err := f.validate(); err != nil {
		panic("wechattest: Inject: " + err.Error())
	}
	s.faults.add(f)
}

// ClearFaults disarms all faults. Calls that hang already go on hanging.
func (s *Simulator) ClearFaults() { s.faults.clear() }

// Faults are those that are armed, oldest first; Times is what is left of it.
func (s *Simulator) Faults() []Fault {
	out := []Fault{}
	for _, a := range s.faults.load() {
		f := a.Fault
		if f.Times > 0 {
			if f.Times = int(a.left.Load()); f.Times <= 0 {
				continue
			}
		}
		out = append(out, f)
	}
	return out
}

type armed struct {
	Fault
	left atomic.Int64 // where Times is not 0
}

// faults is copied on write: a call without a fault costs one load of a pointer.
type faults struct {
	mu   sync.Mutex // for writers
	list atomic.Pointer[[]*armed]
}

func (fs *faults) load() []*armed {
	if p := fs.list.Load(); p != nil {
		return *p
	}
	return nil
}

func (fs *faults) add(f Fault) {
	a := &armed{Fault: f}
	a.left.Store(int64(f.Times))
	fs.mu.Lock()
	defer fs.mu.Unlock()
	list := append(slices.Clone(fs.load()), a)
	fs.list.Store(&list)
}

func (fs *faults) remove(a *armed) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(fs.load()), func(b *armed) bool { return a == b })
	fs.list.Store(&list)
}

func (fs *faults) clear() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.list.Store(nil)
}

// take returns the fault that strikes this call, or nil.
func (fs *faults) take(appid string, ep endpoint) *Fault {
	for _, a := range fs.load() {
		if a.AppID != "" && a.AppID != appid || a.Endpoint != "" && a.Endpoint != ep.String() {
			continue
		}
		if a.Times == 0 {
			return &a.Fault
		}
		switch left := a.left.Add(-1); {
		case left == 0:
			fs.remove(a)
			return &a.Fault
		case left > 0:
			return &a.Fault
		}
	}
	return nil
}

// serveFault is what a struck call sees.
func (s *Simulator) serveFault(w http.ResponseWriter, r *http.Request, c *call, f *Fault, count *counting) {
	count.st.faults.Add(1)
	var a answer
	if f.After {
		a = s.answer(c)
	}
	if !s.wait(r.Context(), f.Delay) || !s.wait(r.Context(), s.cfg.Latency) {
		panic(http.ErrAbortHandler)
	}
	if f.Hang {
		s.wait(r.Context(), -1)
	}
	if f.Hang || f.Drop {
		panic(http.ErrAbortHandler) // net/http closes the connection and logs nothing
	}
	switch {
	case f.Errcode != 0:
		msg := f.Errmsg
		if msg == "" {
			msg = textOf(f.Errcode, c)
		}
		a = s.refuse(refusal{f.Errcode, msg})
	case f.After:
	case f.hides():
		a = s.pretend(c.endpoint)
	default:
		a = s.answer(c)
	}
	if f.Body == "" && (f.Status == 0 || f.Errcode != 0) {
		count.answered(a.errcode)
	}
	count.leave()
	s.writeSpoiled(w, c.endpoint, f, a)
}

// faultJSON is a Fault on the wire.
type faultJSON struct {
	AppID    string `json:"appid,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	Times    int    `json:"times,omitempty"`
	Errcode  int    `json:"errcode,omitempty"`
	Errmsg   string `json:"errmsg,omitempty"`
	Status   int    `json:"status,omitempty"`
	Body     string `json:"body,omitempty"`
	DelayMS  int64  `json:"delay_ms,omitempty"`
	Hang     bool   `json:"hang,omitempty"`
	Drop     bool   `json:"drop,omitempty"`
	After    bool   `json:"after,omitempty"`
}

// MarshalJSON writes Delay as delay_ms, whole milliseconds.
func (f Fault) MarshalJSON() ([]byte, error) {
	return json.Marshal(faultJSON{
		f.AppID, f.Endpoint, f.Times, f.Errcode, f.Errmsg, f.Status, f.Body, f.Delay.Milliseconds(), f.Hang, f.Drop, f.After,
	})
}

// UnmarshalJSON refuses unknown fields.
func (f *Fault) UnmarshalJSON(b []byte) error {
	var j faultJSON
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return err
	}
	*f = Fault{
		j.AppID, j.Endpoint, j.Times, j.Errcode, j.Errmsg, j.Status, j.Body,
		time.Duration(j.DelayMS) * time.Millisecond, j.Hang, j.Drop, j.After,
	}
	return nil
}
