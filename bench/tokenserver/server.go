package tokenserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Config configures a server.
type Config struct {
	API, AppID, Secret string
	Ahead              time.Duration // how long before its end a token is renewed
	Listen             string
}

// Reply is what GET /token and POST /report answer. Milliseconds is the rest of the token's life.
type Reply struct {
	Token        string `json:"token"`
	Milliseconds int64  `json:"milliseconds"`
}

// Report is the body of POST /report: WeChat has refused this token.
type Report struct {
	Token string `json:"token"`
}

type server struct {
	Config
	http *http.Client

	mu      sync.RWMutex
	token   string
	end     time.Time
	renewal sync.Mutex // one call of WeChat for a token at a time
}

// Run serves until ctx ends.
func Run(ctx context.Context, c Config) error {
	s := &server{Config: c, http: &http.Client{Timeout: 5 * time.Second}}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /token", func(w http.ResponseWriter, _ *http.Request) { s.answer(w) })
	routes.HandleFunc("POST /report", s.report)
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: routes, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	go s.keep(ctx)
	go func() { <-ctx.Done(); _ = srv.Close() }()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// keep renews the token ahead of its end. After a failure it tries again each second.
func (s *server) keep(ctx context.Context) {
	for {
		wait := time.Second
		if err := s.renew(ctx, func() bool { return s.rest() <= s.Ahead }); err == nil {
			wait = max(10*time.Millisecond, s.rest()-s.Ahead)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(wait, time.Second)): // a report may have shortened the rest
		}
	}
}

func (s *server) current() (token string, end time.Time) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.token, s.end
}

func (s *server) rest() time.Duration {
	_, end := s.current()
	return time.Until(end)
}

// renew asks WeChat for a token if due still says so when it is this caller's turn.
func (s *server) renew(ctx context.Context, due func() bool) error {
	s.renewal.Lock()
	defer s.renewal.Unlock()
	if !due() {
		return nil
	}
	q := url.Values{"grant_type": {"client_credential"}, "appid": {s.AppID}, "secret": {s.Secret}}
	asked := time.Now()
	var a struct {
		Errcode   int
		Token     string `json:"access_token"`
		ExpiresIn int64  `json:"expires_in"`
	}
	if err := s.get(ctx, "/cgi-bin/token?"+q.Encode(), &a); err != nil {
		return err
	}
	if a.Token == "" {
		return fmt.Errorf("token: errcode %d", a.Errcode)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.end = a.Token, asked.Add(time.Duration(a.ExpiresIn)*time.Second)
	return nil
}

// report replaces a token that WeChat refuses, once for all who report it.
func (s *server) report(w http.ResponseWriter, r *http.Request) {
	var in Report
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&in); err != nil {
		http.Error(w, "not a report", http.StatusBadRequest)
		return
	}
	err := s.renew(r.Context(), func() bool {
		now, _ := s.current()
		return now == in.Token && !s.alive(r.Context(), now)
	})
	if err != nil {
		http.Error(w, "WeChat gives no token", http.StatusBadGateway)
		return
	}
	s.answer(w)
}

// alive asks WeChat whether it accepts a token, so that a false report does not cost one.
func (s *server) alive(ctx context.Context, token string) bool {
	var a struct{ Errcode int }
	err := s.get(ctx, "/cgi-bin/get_api_domain_ip?access_token="+url.QueryEscape(token), &a)
	return err == nil && a.Errcode == 0
}

func (s *server) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.API+path, nil)
	if err != nil {
		return err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return errors.New("WeChat does not answer") // the error of net/http has the URL, and so the secret
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

func (s *server) answer(w http.ResponseWriter) {
	token, end := s.current()
	rest := time.Until(end)
	if rest <= 0 {
		http.Error(w, "no token", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(Reply{token, rest.Milliseconds()}) // the caller may have gone
}
