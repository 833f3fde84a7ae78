package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/bench/proc"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// weChat is a simulated WeChat whose clock is scale times faster than ours. Its lives and quotas are WeChat's own, on
// that clock.
type weChat struct {
	*wechattest.Simulator
	scale float64
	// fast is the URL for clients whose margins are scaled. plain is the URL for clients with an ordinary clock: there
	// expires_in and the header Date are those of an ordinary clock.
	fast, plain string
	servers     []*http.Server

	mu         sync.Mutex
	open       map[proc.Connection]time.Time // of calls for a token that are not answered yet, and since when
	firstToken time.Time                     // the first call for a token
}

// weChatLatency is what each call takes, about as much as a call of WeChat within China.
const weChatLatency = 20 * time.Millisecond

func startWeChat(c wechattest.Config, scale float64) (*weChat, error) {
	w := &weChat{scale: scale, open: map[proc.Connection]time.Time{}}
	if scale != 1 {
		began := time.Now()
		c.Now = func() time.Time { return began.Add(time.Duration(float64(time.Since(began)) * scale)) }
	}
	w.Simulator = wechattest.New(c)
	watched := w.watchTokenCalls(w.Simulator)
	var err error
	if w.fast, err = w.serve(watched); err == nil {
		w.plain = w.fast
		if scale != 1 {
			w.plain, err = w.serve(w.ordinaryClock(watched))
		}
	}
	if err != nil {
		w.close()
	}
	return w, err
}

func (w *weChat) serve(h http.Handler) (url string, err error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	w.servers = append(w.servers, srv)
	go srv.Serve(l) //nolint:errcheck // it returns when the server is closed
	return "http://" + l.Addr().String(), nil
}

func (w *weChat) close() {
	w.Release()
	for _, s := range w.servers {
		_ = s.Close()
	}
}

func isTokenPath(path string) bool {
	return path == "/cgi-bin/token" || path == "/cgi-bin/stable_token"
}

// watchTokenCalls records who is asking for a token.
func (w *weChat) watchTokenCalls(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if isTokenPath(r.URL.Path) {
			server, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
			caller := proc.Connection{ // both are addresses of a TCP connection
				Local:  netip.MustParseAddrPort(r.RemoteAddr),
				Remote: netip.MustParseAddrPort(server.String()),
			}
			w.mu.Lock()
			w.open[caller] = time.Now()
			if w.firstToken.IsZero() {
				w.firstToken = time.Now()
			}
			w.mu.Unlock()
			defer func() {
				w.mu.Lock()
				delete(w.open, caller)
				w.mu.Unlock()
			}()
		}
		h.ServeHTTP(rw, r)
	})
}

// openCalls returns the connections of calls for a token that are not answered yet, and since when.
func (w *weChat) openCalls() map[proc.Connection]time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.open)
}

// age returns how long ago the first token was asked for.
func (w *weChat) age() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.firstToken)
}

// tokenCalls returns how often WeChat was asked for a token.
func (w *weChat) tokenCalls() int { return w.Calls("", "token") + w.Calls("", "stable_token") }

// ordinaryClock makes the answers those of a WeChat with an ordinary clock.
func (w *weChat) ordinaryClock(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		a := &answer{header: rw.Header(), status: http.StatusOK}
		h.ServeHTTP(a, r)
		body := a.body.Bytes()
		if isTokenPath(r.URL.Path) {
			body = divideLife(body, w.scale)
		}
		rw.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
		rw.Header().Set("Content-Length", strconv.Itoa(len(body)))
		rw.WriteHeader(a.status)
		_, _ = rw.Write(body) // the caller may have gone
	})
}

// divideLife divides expires_in, and rounds down. It returns a body that is not an answer with a token as it is.
func divideLife(body []byte, scale float64) []byte {
	var token struct {
		Value  string `json:"access_token"`
		Expire int64  `json:"expires_in"`
	}
	if json.Unmarshal(body, &token) != nil || token.Value == "" {
		return body
	}
	token.Expire = int64(float64(token.Expire) / scale)
	divided, err := json.Marshal(token)
	if err != nil {
		return body
	}
	return divided
}

// answer keeps an answer back, so that it can be changed.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
