package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Config says which system a service uses, and where it is.
type Config struct {
	System        string // one of Systems
	API           string // the simulated WeChat, instead of https://api.weixin.qq.com
	AppID, Secret string
	Backend       string  // address of Redis, URL of the token server, or URL of NATS
	Scale         float64 // how many times faster time is, see the package comment
	Rate          float64 // calls a second
}

// The systems.
const (
	Memory       = "silenceper-memory"
	MemoryStable = "silenceper-memory-stable"
	Redis        = "silenceper-redis"
	RedisStable  = "silenceper-redis-stable"
	Asked        = "tokenserver-asked"
	Cached       = "tokenserver-cached"
	Reporting    = "tokenserver-reporting"
	Wxkeeper     = "wxkeeper"
)

// callTimeout is the time limit of each call, of every system.
const callTimeout = 5 * time.Second

// client is how a service uses its system. It is safe for concurrent use.
type client interface {
	// token returns the current token, as the service would use it for a call that the system does not make itself.
	token(context.Context) (string, error)
	// call makes one call of WeChat with the current token.
	call(context.Context) error
	close()
}

func newClient(ctx context.Context, c Config) (client, error) {
	switch c.System {
	case Memory, MemoryStable, Redis, RedisStable:
		return newSDK(c), nil
	case Asked, Cached, Reporting:
		return newServed(c), nil
	case Wxkeeper:
		return newKept(ctx, c)
	}
	return nil, fmt.Errorf("no system %q", c.System)
}

// refused is WeChat's refusal of a call.
type refused int

func (r refused) Error() string { return fmt.Sprintf("errcode %d", int(r)) }

// dead reports whether WeChat refuses the token itself.
func (r refused) dead() bool {
	return r == 40001 || r == 40014 || r == 42001
}

// callPath is the call of WeChat that every service makes. It costs no quota, and needs only a valid token.
const callPath = "/cgi-bin/get_api_domain_ip"

// get makes the call. An empty token leaves the token to the client's transport.
func get(ctx context.Context, h *http.Client, api, token string) error {
	target := api + callPath
	if token != "" {
		target += "?access_token=" + url.QueryEscape(token)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	resp, err := h.Do(req)
	if err != nil {
		return errors.New("no answer") // the error of net/http has the URL, and so the token
	}
	defer resp.Body.Close()
	var a struct{ Errcode int }
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return err
	}
	if a.Errcode != 0 {
		return refused(a.Errcode)
	}
	return nil
}
