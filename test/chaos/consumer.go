//go:build unix

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

// With consumeVerb this program is a consumer, of one of two kinds.
const (
	consumeVerb = "consume"
	kindReader  = "reader" // has a kv.Reader
	kindPoller  = "poller" // requests credentials from the workers, and has only a NATS client
)

const (
	sampleEvery = 250 * time.Millisecond
	// attemptTimeout is longer than a worker takes for a reply.
	attemptTimeout = 2500 * time.Millisecond
	// patience is how long a consumer repeats a request: no fault keeps servers or workers away for so long.
	patience = 30 * time.Second
)

// What an answer has for a symbol if no worker returned an error.
const (
	symbolOK    = "ok"
	symbolNone  = "none"  // no answer within patience
	symbolWrong = "wrong" // an answer with another code, or one that is no JSON
)

// sample is the value that a consumer holds at one time.
type sample struct {
	AppID      string    `json:"appid"`
	Kind       string    `json:"kind"`
	Value      string    `json:"value"` // empty: it has none
	Generation uint64    `json:"generation"`
	At         time.Time `json:"at"`
}

// answer is the outcome of a request.
type answer struct {
	Subject  string    `json:"subject"`
	AppID    string    `json:"appid"`
	At       time.Time `json:"at"`
	Symbol   string    `json:"symbol"` // of the error, or one of the constants above
	Message  string    `json:"message,omitempty"`
	Attempts int       `json:"attempts"`
	TookMS   int64     `json:"took_ms"`
}

// observation is what a consumer posts to the checker.
type observation struct {
	Name       string   `json:"name"`
	PID        int      `json:"pid"`
	Samples    []sample `json:"samples,omitempty"`
	Answers    []answer `json:"answers,omitempty"`
	Goroutines int      `json:"goroutines"`
}

// instruction is the reply of the checker: the accounts to use, and the samples that WeChat refuses.
type instruction struct {
	Accounts []account `json:"accounts"`
	Dead     []sample  `json:"dead"`
}

// consumer is a service that uses credentials.
type consumer struct {
	name, checkerURL string
	nc               *nats.Conn
	client           *messages.Client
	accounts         []account

	mu        sync.Mutex
	answers   []answer
	reporting map[string]bool // credentials with a report in progress
	refused   []sample        // a poller requests them again, as a service does after a refusal
}

func consume(ctx context.Context, args []string) error {
	f := flag.NewFlagSet(consumeVerb, flag.ContinueOnError)
	c := &consumer{reporting: make(map[string]bool)}
	f.StringVar(&c.name, "name", "", "")
	f.StringVar(&c.checkerURL, "checker", "", "")
	kind := f.String("kind", "", "")
	only := f.String("only", "", "")
	feed := f.String("feed", "", "")
	url := f.String("nats", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	first, err := c.post(ctx, observation{Name: c.name, PID: os.Getpid()})
	if err != nil {
		return err
	}
	c.accounts = first.Accounts
	c.nc, err = nats.Connect(*url, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(500*time.Millisecond), nats.PingInterval(5*time.Second))
	if err != nil {
		return err
	}
	defer c.nc.Close()
	c.client = messages.NewClient(c.nc, "")
	var loops sync.WaitGroup
	defer loops.Wait()
	startLoad := func() {
		for range 3 {
			loops.Go(func() { c.every(ctx, 60*time.Millisecond, c.resolve) })
		}
	}
	if *kind == kindPoller {
		startLoad()
		c.every(ctx, sampleEvery, func(ctx context.Context) { c.observe(ctx, c.poll(ctx)) })
		return nil
	}
	cfg := kv.ReaderConfig{Feed: kv.Feed(*feed)}
	if *only != "" {
		cfg.AppIDs = []string{*only}
		c.accounts = slices.DeleteFunc(c.accounts, func(a account) bool { return a.AppID != *only })
	}
	reader, err := kv.NewReader(c.nc, cfg)
	if err != nil {
		return err
	}
	startLoad()
	loops.Go(func() { _ = reader.Run(ctx) }) // the end of ctx is its only error
	c.every(ctx, sampleEvery, func(ctx context.Context) { c.observe(ctx, c.read(reader)) })
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

// read returns everything that a kv.Reader holds.
func (c *consumer) read(r *kv.Reader) []sample {
	var samples []sample
	for _, a := range c.accounts {
		for _, kind := range a.kinds() {
			s := sample{AppID: a.AppID, Kind: kind, At: time.Now()}
			if cred, err := r.Get(a.AppID, messages.Kind(kind)); err == nil {
				s.Value, s.Generation = cred.Value, cred.Generation
			}
			samples = append(samples, s)
		}
	}
	return samples
}

// poll requests a few credentials with a plain NATS client.
func (c *consumer) poll(ctx context.Context) []sample {
	c.mu.Lock()
	wanted := c.refused
	c.refused = nil
	c.mu.Unlock()
	for range 4 {
		a := c.accounts[rand.IntN(len(c.accounts))]
		kinds := a.kinds()
		wanted = append(wanted, sample{AppID: a.AppID, Kind: kinds[rand.IntN(len(kinds))]})
	}
	var samples []sample
	for _, s := range wanted {
		var got struct {
			Value      string `json:"value"`
			Generation uint64 `json:"generation"`
		}
		request := map[string]string{"appid": s.AppID, "kind": s.Kind}
		ans := c.request(ctx, "wechat.credential.get", s.AppID, request, func(body []byte) error {
			return json.Unmarshal(body, &got)
		})
		if ans.Symbol == symbolOK || ans.Symbol == string(messages.NoCredential) {
			samples = append(samples, sample{s.AppID, s.Kind, got.Value, got.Generation, time.Now()})
		}
	}
	return samples
}

// resolve requests the code of a ticket, and checks it.
func (c *consumer) resolve(ctx context.Context) {
	a := c.accounts[rand.IntN(len(c.accounts))]
	ticket := fmt.Sprintf("%032x", rand.Uint64())
	request := messages.ResolveCodeRequest{AppID: a.AppID, OpenID: "oChaos", CodeTicket: ticket}
	c.request(ctx, "wechat.code.resolve", a.AppID, request, func(body []byte) error {
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

// request sends a request as docs/operations.md advises: it repeats it after silence, no responders, overloaded and
// shutting_down.
func (c *consumer) request(ctx context.Context, subject, appid string, body any, check func([]byte) error) answer {
	ans := answer{Subject: subject, AppID: appid, Symbol: symbolNone}
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	began := time.Now()
	for ctx.Err() == nil && time.Since(began) < patience {
		ans.Attempts++
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		reply, err := c.nc.RequestWithContext(attempt, subject, text)
		if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrDisconnected) {
			<-time.After(100 * time.Millisecond)
		}
		cancel()
		if err != nil {
			ans.Message = err.Error()
			continue
		}
		if reply.Header.Get(messages.HeaderErrorCode) == "" {
			ans.Symbol, ans.Message = symbolOK, ""
			if err := check(reply.Data); err != nil {
				ans.Symbol, ans.Message = symbolWrong, err.Error()
			}
			break
		}
		var e messages.Error
		if err := json.Unmarshal(reply.Data, &e); err != nil {
			ans.Symbol, ans.Message = symbolWrong, err.Error()
			break
		}
		ans.Symbol, ans.Message = string(e.Symbol), e.Message
		if e.Symbol != messages.Overloaded && e.Symbol != messages.ShuttingDown {
			break
		}
	}
	ans.At, ans.TookMS = time.Now(), time.Since(began).Milliseconds()
	if ctx.Err() != nil {
		return ans // this consumer stops: a request without an answer is no violation
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers = append(c.answers, ans)
	return ans
}

// observe posts samples to the checker, and reports the refused ones to the workers, as a service does whose call of
// WeChat was refused.
func (c *consumer) observe(ctx context.Context, samples []sample) {
	c.mu.Lock()
	answers := c.answers
	c.answers = nil
	c.mu.Unlock()
	reply, err := c.post(ctx, observation{c.name, os.Getpid(), samples, answers, runtime.NumGoroutine()})
	if err != nil {
		return // the run is over
	}
	c.mu.Lock()
	c.refused = reply.Dead
	c.mu.Unlock()
	for _, s := range reply.Dead {
		c.mu.Lock()
		running := c.reporting[s.AppID+s.Kind]
		c.reporting[s.AppID+s.Kind] = true
		c.mu.Unlock()
		if running {
			continue
		}
		go func() {
			asking, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			_, _ = c.client.RefreshCredential(asking, messages.RefreshCredentialRequest{
				AppID: s.AppID, Kind: messages.Kind(s.Kind), ValueSHA256: messages.ValueSHA256(s.Value),
			}) // the next sample shows the outcome
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.reporting, s.AppID+s.Kind)
		}()
	}
}

var httpClient = &http.Client{Timeout: 5 * time.Second}

func (c *consumer) post(ctx context.Context, o observation) (instruction, error) {
	var reply instruction
	body, err := json.Marshal(o)
	if err != nil {
		return reply, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.checkerURL, bytes.NewReader(body))
	if err != nil {
		return reply, err
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return reply, err
	}
	defer resp.Body.Close()
	return reply, json.NewDecoder(resp.Body).Decode(&reply)
}
