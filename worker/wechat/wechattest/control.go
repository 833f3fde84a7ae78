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

// controlRoute is one call of the control API. Its example is a complete one.
type controlRoute struct {
	pattern string // of http.ServeMux: "POST /accounts"
	example string // the path, where the pattern has a wildcard; "": that of the pattern
	body    string // JSON; "": none
	does    string
	handle  http.HandlerFunc
}

// controlRoutes are the calls, in the order in which GET / lists them.
func (s *Simulator) controlRoutes() []controlRoute {
	done := func(do func()) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { do(); reply(w, okJSON{true}) }
	}
	return []controlRoute{
		{"GET /calls", "", "", "count what was called, by account and endpoint", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Snapshot()) }},
		{"POST /calls/reset", "", "", "count anew", done(s.ResetCounters)},
		{"GET /faults", "", "", "list the faults in force", s.controlListFaults},
		{"POST /faults", "", `{"appid":"wx1","endpoint":"token","times":3,"errcode":-1}`, "let calls fail, hang, or be late", post(s.controlInject)},
		{"DELETE /faults", "", "", "end all faults", done(s.ClearFaults)},
		{"POST /foreign-refresh", "", `{"appid":"wx1","endpoint":"token"}`, "fetch a token as another system would", post(s.controlForeignRefresh)},
		{"POST /revoke", "", `{"token":"97_…"}`, "kill one token", post(s.controlRevoke)},
		{"POST /judge", "", `{"appid":"wx1","kind":"access_token","value":"97_…"}`, "say whether a value is good now", post(s.controlJudge)},
		{"POST /codes", "", `{"appid":"wx1","openid":"o1","code_ticket":"t1","reply":{"errcode":0,"errmsg":"ok","code":"012345678"}}`, "add what a code_ticket resolves to", post(s.controlAddCode)},
		{"GET /accounts", "", "", "list the accounts", s.controlListAccounts},
		{"POST /accounts", "", `{"appid":"wx1","secret":"s1"}`, "add an account", post(s.controlAddAccount)},
		{"POST /secrets", "", `{"appid":"wx1","secret":"rotated"}`, "change its AppSecret", post(s.controlSetSecret)},
		{"DELETE /accounts/{appid}", "/accounts/wx1", "", "remove it", s.controlRemoveAccount},
		{"GET /healthz", "", "", "answer", done(func() {})},
	}
}

// curl is the route as a command line.
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

// Control is the simulation's own API: what the methods of Simulator do, over HTTP.
// See the package comment; GET / lists it. Serve it on a listener of its own, or
// under a path of your choice with http.StripPrefix.
func (s *Simulator) Control() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, fmt.Errorf("no such control call: %s %s; GET / lists them", r.Method, r.URL.Path))
	})
	routes := s.controlRoutes()
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		var b strings.Builder
		b.WriteString("The control API of the simulated WeChat. JSON in, JSON out; what is wrong is said with {\"error\":\"…\"}.\n")
		for _, route := range routes {
			fmt.Fprintf(&b, "\n# %s\n%s\n", route.does, route.curl("http://"+r.Host))
		}
		write(w, http.StatusOK, "text/plain; charset=utf-8", []byte(b.String()))
	})
	for _, route := range routes {
		m.HandleFunc(route.pattern, route.handle)
	}
	return m
}

type okJSON struct {
	OK bool `json:"ok"`
}

type appIDJSON struct {
	AppID string `json:"appid"`
}

// errNotThere is what the request names and the simulation does not know: 404.
var errNotThere = errors.New("not there")

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
		return nil, fmt.Errorf("account %q: %w", a.AppID, errNotThere)
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
		return nil, fmt.Errorf("account %q: %w", c.AppID, errNotThere)
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
		return nil, fmt.Errorf("account %q: %w", f.AppID, errNotThere)
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
		return nil, fmt.Errorf("token: %w", errNotThere)
	}
	return okJSON{true}, nil
}

func (s *Simulator) controlJudge(in struct {
	AppID string `json:"appid"`
	Kind  string `json:"kind"`
	Value string `json:"value"`
},
) (any, error) {
	if !knownKind(in.Kind) {
		return nil, fmt.Errorf("kind %q is none of %v", in.Kind, kinds)
	}
	return struct {
		Verdict Verdict `json:"verdict"`
	}{s.Judge(in.AppID, in.Kind, in.Value)}, nil
}

// post reads one JSON object and nothing else.
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
		case errors.Is(err, errNotThere):
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
