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

// Fault is a failure of calls. Of all faults that match a call only the oldest affects it. The fault acts in
// this order: wait for Delay; Hang or Drop; answer with Errcode, Status and Body. A fault with only a Delay
// lets the true answer through.
//
// In JSON the names are appid, endpoint, times, errcode, errmsg, status, body, delay_ms, hang, drop, after.
type Fault struct {
	AppID    string // "": any
	Endpoint string // token, stable_token, getticket, tickettocode, get_api_domain_ip; "": any
	Times    int    // the number of calls that it affects. 0: until ClearFaults

	Errcode int    // refuse with this errcode
	Errmsg  string // text of Errcode; "": WeChat's text. A rid is appended unless the text has one
	Status  int    // HTTP status, 200 to 599; without Errcode and Body, with the page of a gateway as body. 0: 200

	// Body corrupts the answer:
	//
	//	empty              no body
	//	truncated          the first half of the answer, with a matching Content-Length
	//	cut                the first half of the answer, then the connection ends
	//	html               a web page
	//	binary             bytes that are not text
	//	huge               the answer with more than 1 MiB
	//	wrong_type         expires_in as a string; code as a number; ip_list as a string
	//	short_life         expires_in 1
	//	zero_life          expires_in 0
	//	no_value           without the token, ticket, code or ip_list
	//	empty_value        with an empty token, ticket, code or ip_list
	//	long_value         with a value of more than 2 KiB
	//	unprintable_value  with control characters in the value
	//	raw_control        with a raw line break in a string of its own, so it is no strict JSON
	//	gzip               compressed, with Content-Encoding: gzip, whatever the request accepts
	//	raw:…              the text after the colon
	//
	// Without After, the corrupted value is one that WeChat never issued.
	Body string

	Delay time.Duration // wait first, in real time; JSON: delay_ms
	Hang  bool          // do not answer until the caller goes away or the server closes
	Drop  bool          // close the connection without an answer

	// After makes the call take effect (issue a value, count in a quota) before the fault hides the answer,
	// as if the answer were lost on its way. Without After, the call does not reach WeChat.
	After bool
}

var bodies = []string{
	"empty", "truncated", "cut", "html", "binary", "huge", "wrong_type", "short_life", "zero_life",
	"no_value", "empty_value", "long_value", "unprintable_value", "raw_control", "gzip",
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
		return errors.New("hang and drop cannot be combined")
	case !f.hides() && f.Delay == 0:
		return errors.New("this fault does nothing: it needs errcode, status, body, delay_ms, hang or drop")
	}
	return nil
}

// hides reports whether the fault replaces the true answer.
func (f Fault) hides() bool {
	return f.Hang || f.Drop || f.Errcode != 0 || f.Status != 0 || f.Body != ""
}

// Inject adds a fault. It panics if the fault is invalid.
func (s *Simulator) Inject(f Fault) {
	if err := f.validate(); err != nil {
		panic("wechattest: Inject: " + err.Error())
	}
	s.faults.add(f)
}

// ClearFaults removes all faults. Calls that already hang are not affected.
func (s *Simulator) ClearFaults() { s.faults.clear() }

// Faults returns the faults in force, oldest first. Times is the number of calls that are left.
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

// armed is a fault in force.
type armed struct {
	Fault
	left atomic.Int64 // calls that are left; used if Times is not 0
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

// take returns the fault that affects this call, or nil. It uses up one of the fault's Times.
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

// serveFault answers a call that a fault affects.
func (s *Simulator) serveFault(w http.ResponseWriter, r *http.Request, c *call, f *Fault, open *openCall) {
	open.st.faults.Add(1)
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
		a = s.fakeSuccess(c.endpoint)
	default:
		a = s.answer(c)
	}
	if f.Body == "" && (f.Status == 0 || f.Errcode != 0) {
		open.answered(a.errcode)
	}
	open.end()
	s.writeCorrupt(w, c.endpoint, f, a)
}

// faultJSON is a Fault in JSON.
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
		f.AppID, f.Endpoint, f.Times, f.Errcode, f.Errmsg, f.Status, f.Body, f.Delay.Milliseconds(), f.Hang, f.Drop,
		f.After,
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
