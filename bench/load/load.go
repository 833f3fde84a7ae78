// Package load makes the requests of the comparison of code.resolve, in a process of its own.
package load

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/bench/relay"
)

// The ways from a caller to WeChat's answer. Echo does not go to WeChat.
const (
	Echo    = "echo"
	Direct  = "direct"
	Relay   = "relay"
	Resolve = "resolve"
)

// Order is one line of JSON on the standard input: which way, with how many callers, for how long.
type Order struct {
	Way     string        `json:"way"`
	Callers int           `json:"callers"`
	For     time.Duration `json:"for"`
}

// Result is the answer to an Order, as one line of JSON on the standard output.
type Result struct {
	Requests int           `json:"requests"`
	Took     time.Duration `json:"took"`
	Error    string        `json:"error,omitempty"` // of the first request that failed
}

const patience = 10 * time.Second

type loader struct {
	nc     *nats.Conn
	caller *relay.Caller
	appid  string
	sent   atomic.Uint64
}

// Run executes orders until its input ends.
func Run(ctx context.Context, natsURL, api, appid string, in io.Reader, out io.Writer) error {
	nc, err := relay.Connect(natsURL)
	if err != nil {
		return err
	}
	defer nc.Close()
	caller, err := relay.NewCaller(ctx, nc, api, appid)
	if err != nil {
		return err
	}
	l := &loader{nc: nc, caller: caller, appid: appid}
	answers := json.NewEncoder(out)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var o Order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return err
		}
		if err := answers.Encode(l.execute(o)); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) execute(o Order) (r Result) {
	var wg sync.WaitGroup
	var requests atomic.Int64
	var once sync.Once
	began := time.Now()
	for range o.Callers {
		wg.Go(func() {
			for time.Since(began) < o.For {
				if err := l.request(o.Way); err != nil {
					once.Do(func() { r.Error = err.Error() })
					return
				}
				requests.Add(1)
			}
		})
	}
	wg.Wait()
	r.Requests, r.Took = int(requests.Load()), time.Since(began)
	return r
}

// request makes one request with a code_ticket of its own, because resolutions of one ticket share one call.
func (l *loader) request(way string) error {
	body := fmt.Appendf(nil, `{"appid":%q,"openid":"o-bench","code_ticket":"ticket-%d"}`, l.appid, l.sent.Add(1))
	switch way {
	case Echo:
		_, err := l.nc.Request(relay.EchoSubject, body, patience)
		return err
	case Direct:
		return checkCode(l.caller.Call(body))
	case Relay:
		return checkReply(l.nc.Request(relay.RelaySubject, body, patience))
	case Resolve:
		return checkReply(l.nc.Request("wechat.code.resolve", body, patience))
	}
	return fmt.Errorf("no way %q", way)
}

func checkReply(m *nats.Msg, err error) error {
	if err != nil {
		return err
	}
	return checkCode(m.Data, nil)
}

// checkCode makes sure that only successes are measured.
func checkCode(answer []byte, err error) error {
	var code struct {
		Errcode int    `json:"errcode"`
		Code    string `json:"code"`
	}
	if err == nil {
		err = json.Unmarshal(answer, &code)
	}
	if err == nil && (code.Errcode != 0 || code.Code == "") {
		err = fmt.Errorf("no code: errcode %d", code.Errcode)
	}
	return err
}
