package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// consumeVerb makes this program a consumer, of one of two kinds.
const (
	consumeVerb = "consume"
	kindReader  = "reader" // has a kv.Reader
	kindPoller  = "poller" // asks the workers, with nothing but a NATS client
)

const (
	lookEvery = 250 * time.Millisecond
	// firstTry is what one request waits for its reply, longer than a worker takes; patience what an asker has in all:
	// no server and no worker is away for so long.
	firstTry = 2500 * time.Millisecond
	patience = 30 * time.Second
)

// sighting is one value that a consumer holds, and when it looked.
type sighting struct {
	AppID      string    `json:"appid"`
	Kind       string    `json:"kind"`
	Value      string    `json:"value"` // empty: it has none
	Generation uint64    `json:"generation"`
	At         time.Time `json:"at"`
}

// answer is what became of a request.
type answer struct {
	Subject string    `json:"subject"`
	AppID   string    `json:"appid"`
	At      time.Time `json:"at"`
	Symbol  string    `json:"symbol"` // "ok", that of the error, or "none": no answer within patience
	Message string    `json:"message,omitempty"`
	Tries   int       `json:"tries"`
	TookMS  int64     `json:"took_ms"`
}

// report is what a consumer tells the judge.
type report struct {
	Name       string     `json:"name"`
	PID        int        `json:"pid"`
	Sightings  []sighting `json:"sightings,omitempty"`
	Answers    []answer   `json:"answers,omitempty"`
	Goroutines int        `json:"goroutines"`
}

// assignment is what the judge tells a consumer: the accounts, and which of what it saw is refused by WeChat.
type assignment struct {
	Accounts []account  `json:"accounts"`
	Dead     []sighting `json:"dead"`
}

// consumer is a service that uses credentials.
type consumer struct {
	name, ear string
	nc        *nats.Conn
	client    *messages.Client
	accounts  []account

	mu        sync.Mutex
	answers   []answer
	reporting map[string]bool // keys of values that are being reported as dead
	refused   []sighting      // by a poller: it asks again for what WeChat refused, as a service would
}

func consume(ctx context.Context, args []string) error {
	f := flag.NewFlagSet(consumeVerb, flag.ContinueOnError)
	c := &consumer{reporting: make(map[string]bool)}
	f.StringVar(&c.name, "name", "", "")
	f.StringVar(&c.ear, "ear", "", "")
	kind := f.String("kind", "", "")
	only := f.String("only", "", "")
	direct := f.Bool("direct", false, "")
	url := f.String("nats", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	told, err := c.tell(ctx, report{Name: c.name, PID: os.Getpid()})
	if err != nil {
		return err
	}
	c.accounts = told.Accounts
	c.nc, err = nats.Connect(*url, nats.MaxReconnects(-1), nats.ReconnectWait(500*time.Millisecond), nats.RetryOnFailedConnect(true), nats.PingInterval(5*time.Second))
	if err != nil {
		return err
	}
	defer c.nc.Close()
	c.client = messages.NewClient(c.nc, "")
	var loops sync.WaitGroup
	defer loops.Wait()
	load := func() {
		for range 3 {
			loops.Go(func() { c.every(ctx, 60*time.Millisecond, c.resolve) })
		}
	}
	if *kind == kindPoller {
		load()
		c.every(ctx, lookEvery, func(ctx context.Context) { c.look(ctx, c.poll(ctx)) })
		return nil
	}
	cfg := kv.ReaderConfig{Direct: *direct}
	if *only != "" {
		cfg.AppIDs = []string{*only}
		c.accounts = slices.DeleteFunc(c.accounts, func(a account) bool { return a.AppID != *only })
	}
	reader, err := kv.NewReader(c.nc, cfg)
	if err != nil {
		return err
	}
	load()
	loops.Go(func() { _ = reader.Run(ctx) }) // it ends with ctx alone
	c.every(ctx, lookEvery, func(ctx context.Context) { c.look(ctx, c.read(reader)) })
	return nil
}

func (c *consumer) every(ctx context.Context, d time.Duration, f func(context.Context)) {
	for t := time.NewTicker(d); ctx.Err() == nil; {
		f(ctx)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
}

// read looks at everything that a kv.Reader holds.
func (c *consumer) read(r *kv.Reader) []sighting {
	var seen []sighting
	for _, a := range c.accounts {
		for _, kind := range a.kinds() {
			s := sighting{AppID: a.AppID, Kind: kind, At: time.Now()}
			if cred, err := r.Get(a.AppID, messages.Kind(kind)); err == nil {
				s.Value, s.Generation = cred.Value, cred.Generation
			}
			seen = append(seen, s)
		}
	}
	return seen
}

// poll asks for a few credentials, with nothing but a NATS client.
func (c *consumer) poll(ctx context.Context) []sighting {
	c.mu.Lock()
	asked := c.refused
	c.refused = nil
	c.mu.Unlock()
	for range 4 {
		a := c.accounts[rand.IntN(len(c.accounts))]
		kinds := a.kinds()
		asked = append(asked, sighting{AppID: a.AppID, Kind: kinds[rand.IntN(len(kinds))]})
	}
	var seen []sighting
	for _, s := range asked {
		var got struct {
			Value      string `json:"value"`
			Generation uint64 `json:"generation"`
		}
		ans := c.ask(ctx, "wechat.credential.get", s.AppID, map[string]string{"appid": s.AppID, "kind": s.Kind}, func(body []byte) error {
			return json.Unmarshal(body, &got)
		})
		if ans.Symbol == "ok" || ans.Symbol == string(messages.NoCredential) {
			seen = append(seen, sighting{s.AppID, s.Kind, got.Value, got.Generation, time.Now()})
		}
	}
	return seen
}

// resolve asks for the code behind a ticket, and checks that it is the right one.
func (c *consumer) resolve(ctx context.Context) {
	a := c.accounts[rand.IntN(len(c.accounts))]
	ticket := fmt.Sprintf("%032x", rand.Uint64())
	c.ask(ctx, "wechat.code.resolve", a.AppID, messages.ResolveCodeRequest{AppID: a.AppID, OpenID: "oChaos", CodeTicket: ticket}, func(body []byte) error {
		var code messages.Code
		if err := json.Unmarshal(body, &code); err != nil {
			return err
		}
		if want := wechattest.CodeOf(ticket); code.Code != want {
			return fmt.Errorf("code %s, want %s", code.Code, want)
		}
		return nil
	})
}

// ask asks as docs/operations.md says: again after silence, no responders, overloaded, shutting_down.
func (c *consumer) ask(ctx context.Context, subject, appid string, request any, ok func([]byte) error) answer {
	ans := answer{Subject: subject, AppID: appid, Symbol: "none"}
	body, err := json.Marshal(request)
	if err != nil {
		panic(err)
	}
	began := time.Now()
	for ctx.Err() == nil && time.Since(began) < patience {
		ans.Tries++
		trying, cancel := context.WithTimeout(ctx, firstTry)
		reply, err := c.nc.RequestWithContext(trying, subject, body)
		if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrDisconnected) {
			<-time.After(100 * time.Millisecond)
		}
		cancel()
		if err != nil {
			ans.Message = err.Error()
			continue
		}
		if reply.Header.Get(messages.HeaderErrorCode) == "" {
			ans.Symbol, ans.Message = "ok", ""
			if err := ok(reply.Data); err != nil {
				ans.Symbol, ans.Message = "wrong", err.Error()
			}
			break
		}
		var e messages.Error
		if err := json.Unmarshal(reply.Data, &e); err != nil {
			ans.Symbol, ans.Message = "wrong", err.Error()
			break
		}
		ans.Symbol, ans.Message = string(e.Symbol), e.Message
		if e.Symbol != messages.Overloaded && e.Symbol != messages.ShuttingDown {
			break
		}
	}
	ans.At, ans.TookMS = time.Now(), time.Since(began).Milliseconds()
	if ctx.Err() != nil {
		return ans // this consumer is stopping: what it did not get is nobody's fault
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers = append(c.answers, ans)
	return ans
}

// look tells the judge what was seen, and reports to the workers what WeChat refuses, as a service would whose call
// was refused.
func (c *consumer) look(ctx context.Context, seen []sighting) {
	c.mu.Lock()
	answers := c.answers
	c.answers = nil
	c.mu.Unlock()
	told, err := c.tell(ctx, report{c.name, os.Getpid(), seen, answers, runtime.NumGoroutine()})
	if err != nil {
		return // the judge has gone
	}
	c.mu.Lock()
	c.refused = told.Dead
	c.mu.Unlock()
	for _, s := range told.Dead {
		c.mu.Lock()
		under := c.reporting[s.AppID+s.Kind]
		c.reporting[s.AppID+s.Kind] = true
		c.mu.Unlock()
		if under {
			continue
		}
		go func() {
			asking, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			_, _ = c.client.RefreshCredential(asking, messages.RefreshCredentialRequest{AppID: s.AppID, Kind: messages.Kind(s.Kind), ValueSHA256: messages.ValueSHA256(s.Value)}) // the next look tells
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.reporting, s.AppID+s.Kind)
		}()
	}
}

var earClient = &http.Client{Timeout: 5 * time.Second}

func (c *consumer) tell(ctx context.Context, r report) (assignment, error) {
	var told assignment
	body, err := json.Marshal(r)
	if err != nil {
		return told, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.ear, bytes.NewReader(body))
	if err != nil {
		return told, err
	}
	resp, err := earClient.Do(req)
	if err != nil {
		return told, err
	}
	defer resp.Body.Close()
	return told, json.NewDecoder(resp.Body).Decode(&told)
}
