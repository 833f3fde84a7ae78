package wechattest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// controlRoute is one call of the control API, with a complete example.
type controlRoute struct {
	pattern string // of http.ServeMux: "POST /accounts"
	does    string // what the call does
	example string // path of the example, if the pattern has a wildcard; "": the path of the pattern
	body    string // JSON body of the example; "": no body
	handle  http.HandlerFunc
}

// controlRoutes returns the calls in the order in which GET / lists them.
func (s *Simulator) controlRoutes() []controlRoute {
	done := func(do func()) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { do(); reply(w, okJSON{true}) }
	}
	return []controlRoute{
		{
			pattern: "GET /calls", does: "return the counters by account and endpoint",
			handle: func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Snapshot()) },
		},
		{pattern: "POST /calls/reset", does: "set the counters to zero", handle: done(s.ResetCounters)},
		{pattern: "GET /faults", does: "list the faults in force", handle: s.controlListFaults},
		{
			pattern: "POST /faults", does: "make calls fail, hang, or take longer",
			body: `{"appid":"wx1","endpoint":"token","times":3,"errcode":-1}`, handle: post(s.controlInject),
		},
		{pattern: "DELETE /faults", does: "remove all faults", handle: done(s.ClearFaults)},
		{
			pattern: "POST /foreign-refresh", does: "request a token as another system would",
			body: `{"appid":"wx1","endpoint":"token"}`, handle: post(s.controlForeignRefresh),
		},
		{
			pattern: "POST /revoke", does: "make WeChat refuse a token", body: `{"token":"97_…"}`,
			handle: post(s.controlRevoke),
		},
		{
			pattern: "POST /judge", does: "return whether WeChat accepts a value now",
			body: `{"appid":"wx1","kind":"access_token","value":"97_…"}`, handle: post(s.controlValidity),
		},
		{
			pattern: "POST /codes", does: "register what a code_ticket resolves to",
			body: `{"appid":"wx1","openid":"o1","code_ticket":"t1",` +
				`"reply":{"errcode":0,"errmsg":"ok","code":"012345678"}}`,
			handle: post(s.controlAddCode),
		},
		{pattern: "GET /accounts", does: "list the accounts", handle: s.controlListAccounts},
		{
			pattern: "POST /accounts", does: "add an account", body: `{"appid":"wx1","secret":"s1"}`,
			handle: post(s.controlAddAccount),
		},
		{
			pattern: "POST /secrets", does: "change the AppSecret of an account",
			body: `{"appid":"wx1","secret":"rotated"}`, handle: post(s.controlSetSecret),
		},
		{
			pattern: "DELETE /accounts/{appid}", does: "remove an account", example: "/accounts/wx1",
			handle: s.controlRemoveAccount,
		},
		{pattern: "GET /healthz", does: "answer as soon as the simulation runs", handle: done(func() {})},
	}
}

// curl returns the example as a command line.
func (c controlRoute) curl(base string) string {
	method, path, _ := strings.Cut(c.pattern, " ")
	line := "curl "
	switch {
	case c.body != "":
		line += "-d '" + c.body + "' "
	case method != http.MethodGet:
		line += "-X " + method + " "
	}
	return line + base + cmp.Or(c.example, path)
}

// Control returns the handler of the control API: the methods of Simulator over HTTP. The package comment
// describes it, and GET / lists its calls. Serve it on its own listener, or under another path with
// http.StripPrefix.
//
// It refuses what a web site makes a browser send (a form, or a script on another origin): a site that a developer
// visits must not change the simulation. A program that is no browser sends no header that shows an origin, so that
// curl -d works without a Content-Type.
func (s *Simulator) Control() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, fmt.Errorf("the control API has no %s %s: GET / lists all calls", r.Method,
			r.URL.Path))
	})
	routes := s.controlRoutes()
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		var b strings.Builder
		b.WriteString("The control API of the simulated WeChat. Requests and replies are JSON. " +
			"An error is {\"error\":\"…\"}.\n")
		for _, route := range routes {
			fmt.Fprintf(&b, "\n# %s\n%s\n", route.does, route.curl("http://"+r.Host))
		}
		write(w, http.StatusOK, "text/plain; charset=utf-8", []byte(b.String()))
	})
	for _, route := range routes {
		m.HandleFunc(route.pattern, route.handle)
	}
	browsers := http.NewCrossOriginProtection()
	browsers.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fail(w, http.StatusForbidden, errors.New("the control API takes no requests of web sites"))
	}))
	return browsers.Handler(m)
}

type okJSON struct {
	OK bool `json:"ok"`
}

type appIDJSON struct {
	AppID string `json:"appid"`
}

// errNotFound is for a request that names an account or value which does not exist: 404.
var errNotFound = errors.New("does not exist")

func (s *Simulator) controlListAccounts(w http.ResponseWriter, _ *http.Request) {
	out := struct {
		Accounts []appIDJSON `json:"accounts"`
	}{[]appIDJSON{}}
	for _, id := range s.appIDs() {
		out.Accounts = append(out.Accounts, appIDJSON{id})
	}
	reply(w, out)
}

func (s *Simulator) controlAddAccount(a Account) (any, error) {
	if err := a.validate(); err != nil {
		return nil, err
	}
	s.AddAccount(a)
	return appIDJSON{a.AppID}, nil
}

func (s *Simulator) controlRemoveAccount(w http.ResponseWriter, r *http.Request) {
	appid := r.PathValue("appid")
	if !s.removeAccount(appid) {
		fail(w, http.StatusNotFound, fmt.Errorf("no account %q", appid))
		return
	}
	reply(w, appIDJSON{appid})
}

func (s *Simulator) controlSetSecret(a Account) (any, error) {
	if err := a.validate(); err != nil {
		return nil, err
	}
	if !s.setSecret(a.AppID, a.Secret) {
		return nil, fmt.Errorf("account %q: %w", a.AppID, errNotFound)
	}
	return appIDJSON{a.AppID}, nil
}

type codeJSON struct {
	AppID      string          `json:"appid"`
	OpenID     string          `json:"openid"`
	CodeTicket string          `json:"code_ticket"`
	Reply      json.RawMessage `json:"reply"`
}

func (s *Simulator) controlAddCode(c codeJSON) (any, error) {
	switch {
	case c.OpenID == "":
		return nil, errors.New("openid is empty")
	case c.CodeTicket == "":
		return nil, errors.New("code_ticket is empty")
	case c.AppID != "" && s.account(c.AppID) == nil:
		return nil, fmt.Errorf("account %q: %w", c.AppID, errNotFound)
	}
	s.AddCode(c.AppID, c.OpenID, c.CodeTicket, c.Reply)
	return okJSON{true}, nil
}

type faultsJSON struct {
	Faults []Fault `json:"faults"`
}

func (s *Simulator) controlListFaults(w http.ResponseWriter, _ *http.Request) {
	reply(w, faultsJSON{s.Faults()})
}

func (s *Simulator) controlInject(f Fault) (any, error) {
	if err := f.validate(); err != nil {
		return nil, err
	}
	s.Inject(f)
	return faultsJSON{s.Faults()}, nil
}

type foreignJSON struct {
	AppID    string `json:"appid"`
	Endpoint string `json:"endpoint"`
	Token    string `json:"token,omitempty"`
}

func (s *Simulator) controlForeignRefresh(f foreignJSON) (any, error) {
	if s.account(f.AppID) == nil {
		return nil, fmt.Errorf("account %q: %w", f.AppID, errNotFound)
	}
	var err error
	f.Token, err = s.ForeignRefresh(f.AppID, f.Endpoint)
	return f, err
}

func (s *Simulator) controlRevoke(in struct {
	Token string `json:"token"`
},
) (any, error) {
	switch {
	case in.Token == "":
		return nil, errors.New("token is empty")
	case !s.revoke(in.Token):
		return nil, fmt.Errorf("token: %w", errNotFound)
	}
	return okJSON{true}, nil
}

func (s *Simulator) controlValidity(in struct {
	AppID string `json:"appid"`
	Kind  string `json:"kind"`
	Value string `json:"value"`
},
) (any, error) {
	if !knownKind(in.Kind) {
		return nil, fmt.Errorf("kind %q is none of %v", in.Kind, kinds)
	}
	return struct {
		Validity Validity `json:"verdict"` // a part of the control API, which other languages use
	}{s.Validity(in.AppID, in.Kind, in.Value)}, nil
}

// post decodes a body of exactly one JSON value and replies with the result of do.
func post[T any](do func(T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in T
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		d.DisallowUnknownFields()
		if err := d.Decode(&in); err != nil {
			fail(w, http.StatusBadRequest, fmt.Errorf("body: %w", err))
			return
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			fail(w, http.StatusBadRequest, errors.New("body: more than one JSON value"))
			return
		}
		out, err := do(in)
		switch {
		case errors.Is(err, errNotFound):
			fail(w, http.StatusNotFound, err)
		case err != nil:
			fail(w, http.StatusBadRequest, err)
		default:
			reply(w, out)
		}
	}
}

func reply(w http.ResponseWriter, v any) { send(w, http.StatusOK, v) }

func fail(w http.ResponseWriter, status int, err error) {
	send(w, status, struct {
		Error string `json:"error"`
	}{err.Error()})
}

func send(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // no type above can fail
		status, b = http.StatusInternalServerError, []byte(`{"error":"encoding"}`)
	}
	write(w, status, "application/json", append(b, '\n'))
}
