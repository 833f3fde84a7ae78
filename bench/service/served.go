package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/bench/tokenserver"
)

// cacheFor is how long a service keeps a token before it asks the token server again. WeChat accepts a replaced token
// for another five minutes, so a service must ask more often than that.
const cacheFor = time.Minute

// served is a service that has its token from a token server.
type served struct {
	Config
	http *http.Client

	mu      sync.Mutex
	value   string
	askedAt time.Time
	end     time.Time
}

func newServed(c Config) *served {
	return &served{Config: c, http: &http.Client{Timeout: callTimeout}}
}

// token asks the server, each time or once in cacheFor. While the server does not answer, a cached token is used until
// its end.
func (s *served) token(ctx context.Context) (string, error) {
	if s.System == Asked {
		r, err := s.ask(ctx, http.MethodGet, "/token", nil)
		return r.Token, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := float64(cacheFor) / s.Scale
	if time.Since(s.askedAt) < time.Duration(fresh) && time.Now().Before(s.end) {
		return s.value, nil
	}
	r, err := s.ask(ctx, http.MethodGet, "/token", nil)
	if err != nil {
		if time.Now().Before(s.end) {
			return s.value, nil
		}
		return "", err
	}
	s.keep(r)
	return s.value, nil
}

func (s *served) keep(r tokenserver.Reply) {
	s.value, s.askedAt = r.Token, time.Now()
	s.end = s.askedAt.Add(time.Duration(r.Milliseconds) * time.Millisecond)
}

// call makes one call. With reports, a call whose token WeChat refuses is repeated once with the token that the server
// has then.
func (s *served) call(ctx context.Context) error {
	token, err := s.token(ctx)
	if err != nil {
		return err
	}
	err = get(ctx, s.http, s.API, token)
	no, ok := errors.AsType[refused](err)
	if s.System != Reporting || !ok || !no.dead() {
		return err
	}
	r, reportErr := s.ask(ctx, http.MethodPost, "/report", tokenserver.Report{Token: token})
	if reportErr != nil {
		return err
	}
	s.mu.Lock()
	s.keep(r)
	s.mu.Unlock()
	return get(ctx, s.http, s.API, r.Token)
}

func (s *served) ask(ctx context.Context, method, path string, body any) (r tokenserver.Reply, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return r, err
	}
	req, err := http.NewRequestWithContext(ctx, method, s.Backend+path, bytes.NewReader(text))
	if err != nil {
		return r, err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return r, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return r, fmt.Errorf("token server: %s", resp.Status)
	}
	return r, json.NewDecoder(resp.Body).Decode(&r)
}

func (s *served) close() { s.http.CloseIdleConnections() }
