// Package relay is what code.resolve is compared with: an echo on raw NATS, and the least that any worker behind NATS
// must do.
package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/messages"
)

// The subjects.
const (
	EchoSubject  = "echo"
	RelaySubject = "relay"
)

// Connect connects to NATS.
func Connect(url string) (*nats.Conn, error) {
	return nats.Connect(url, nats.MaxReconnects(-1))
}

// Caller calls tickettocode with the token of an account, and checks nothing.
type Caller struct {
	url  string
	http *http.Client
}

// NewCaller takes the account's token from the workers. The token must outlive the measurement.
func NewCaller(ctx context.Context, nc *nats.Conn, api, appid string) (*Caller, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	want := messages.GetCredentialRequest{AppID: appid, Kind: messages.AccessToken}
	c, err := messages.NewClient(nc, "").GetCredential(ctx, want)
	if err != nil {
		return nil, fmt.Errorf("the token: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 256 // the default closes and opens connections under load
	return &Caller{
		url:  api + "/intp/marketcode/tickettocode?access_token=" + c.Value,
		http: &http.Client{Transport: transport, Timeout: 5 * time.Second},
	}, nil
}

// Call sends a request of code.resolve to WeChat, and returns WeChat's answer.
func (c *Caller) Call(body []byte) ([]byte, error) {
	resp, err := c.http.Post(c.url, "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("no answer") // the error of net/http has the URL, and so the token
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// Run answers on both subjects until ctx ends. It prints "ready" when it does.
func Run(ctx context.Context, natsURL, api, appid string, out io.Writer) error {
	nc, err := Connect(natsURL)
	if err != nil {
		return err
	}
	defer nc.Close()
	caller, err := NewCaller(ctx, nc, api, appid)
	if err != nil {
		return err
	}
	if _, err := nc.Subscribe(EchoSubject, func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		return err
	}
	if _, err := nc.Subscribe(RelaySubject, func(m *nats.Msg) {
		go func() {
			if answer, err := caller.Call(m.Data); err == nil {
				_ = m.Respond(answer) // an error, here and above: the caller's time limit ends the request
			}
		}()
	}); err != nil {
		return err
	}
	if err := nc.Flush(); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
