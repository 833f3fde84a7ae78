package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/nats-io/nats.go/micro"

	"github.com/wxkeeper/wxkeeper/messages"
)

// ofAccount is the end of the subjects that name an account.
const ofAccount = ".*"

// request is one request at an endpoint.
type request struct {
	micro.Request
	endpoint string   // the subject of the endpoint, without the prefix; it ends with ofAccount if it names an account
	account  *Account // nil until the account is known
	gate     *gate    // nil: the request has no place in a gate
	place    string   // whose place it has: an AppID or unnamed
}

// answer returns the reply to one request, a value to encode as JSON, or an error.
type answer func(ctx context.Context, r *request) (any, error)

// gate admits the requests of one kind. What it does not admit is refused at once.
type gate struct {
	*admission
	*rates
}

func newGate(limit int, accounts *accounts) *gate {
	return &gate{newAdmission(limit, "requests in progress", accounts), newRates(accounts)}
}

// inline answers a request in the goroutine of its endpoint. It is for requests that are answered from memory.
func (s *service) inline(f answer) func(string) micro.HandlerFunc {
	return func(endpoint string) micro.HandlerFunc {
		return func(req micro.Request) {
			r := &request{Request: req, endpoint: endpoint}
			if err := s.admit(r, nil); err != nil {
				s.respond(r, nil, err)
				return
			}
			s.serve(r, f)
		}
	}
}

// pooled answers a request in a goroutine of the pool. It is for requests that may wait for WeChat, because the
// handlers of an endpoint run one after another.
func (s *service) pooled(f answer, g *gate) func(string) micro.HandlerFunc {
	return func(endpoint string) micro.HandlerFunc {
		return func(req micro.Request) {
			r := &request{Request: req, endpoint: endpoint}
			if err := s.admit(r, g); err != nil {
				s.respond(r, nil, err)
				return
			}
			s.pool.do(func() {
				defer r.leave()
				s.serve(r, f)
			})
		}
	}
}

// admit finds the account that the subject of a request names, and a place for the request in g. If only the body
// names the account, the request has the place of an unnamed account until it is decoded.
func (s *service) admit(r *request, g *gate) error {
	if named, ok := strings.CutSuffix(r.endpoint, ofAccount); ok {
		a, err := s.find(r.Subject()[len(s.prefix)+len(named)+2:])
		if err != nil {
			return err
		}
		r.account, r.place = a, a.AppID
	}
	if g == nil {
		return nil
	}
	if err := g.charge(r.place, len(r.Data())); err != nil {
		return err
	}
	if err := g.enter(r.place); err != nil {
		return err
	}
	r.gate = g
	return nil
}

// leave gives back the place of a request.
func (r *request) leave() {
	if r.gate != nil {
		r.gate.leave(r.place)
	}
}

// serve answers a request. A panic costs only this request.
func (s *service) serve(r *request, f answer) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic while answering a request", "subject", r.endpoint, "panic", fmt.Sprintf("%T", p),
				"stack", string(debug.Stack()))
			s.respond(r, nil, messages.Errorf(messages.Upstream, "internal error"))
		}
	}()
	reply, err := f(s.ctx, r)
	s.respond(r, reply, err)
}

// accountOf finds the account of a request: its subject names it, or its body does, or the worker has only one. It
// moves the request to the place of that account.
func (s *service) accountOf(r *request, appid string) (*Account, error) {
	switch {
	case r.account != nil && appid != "" && appid != r.account.AppID:
		return nil, messages.Errorf(messages.InvalidRequest, "the appid of the body differs from the appid of the subject")
	case r.account != nil:
		return r.account, nil
	}
	a := s.accounts.only()
	switch {
	case appid != "":
		var err error
		if a, err = s.find(appid); err != nil {
			return nil, err
		}
	case a == nil:
		return nil, messages.Errorf(messages.InvalidRequest, "appid is missing: this worker keeps %d accounts",
			s.accounts.len())
	}
	r.account = a
	if r.gate == nil {
		return a, nil
	}
	if err := r.gate.charge(a.AppID, len(r.Data())); err != nil {
		return nil, err
	}
	if err := r.gate.move(r.place, a.AppID); err != nil {
		r.gate = nil // it has no place any more
		return nil, err
	}
	r.place = a.AppID
	return a, nil
}

// find returns the account of an AppID that a request names.
func (s *service) find(appid string) (*Account, error) {
	if err := messages.CheckAppID(appid); errors.Is(err, messages.ErrAppSecret) {
		return nil, messages.Errorf(messages.InvalidRequest, "appid: %v", err)
	} else if err != nil { // it shows the appid of the request, which may be anything
		return nil, messages.Errorf(messages.InvalidRequest, "appid: %v", messages.ErrInvalidAppID)
	}
	a := s.accounts.get(appid)
	if a == nil {
		return nil, messages.Errorf(messages.UnknownAccount, "no account %s is configured here", appid)
	}
	return a, nil
}
