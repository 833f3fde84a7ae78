//go:build cli

package main

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// Workers are stopped one after another while clients send requests. Each request is answered at the first attempt.
func TestStopUnderLoadLosesNoRequest(t *testing.T) {
	t.Parallel()
	sim := simulate(t, "--account="+appid+":"+secret, "--any-code", "--latency=30ms")
	first := run(t, sim.account(t))
	first.awaitFresh(t)
	var others []*workerProcess
	for range 2 {
		w := run(t, sim.account(t).with(first.another(t)))
		w.awaitFresh(t)
		others = append(others, w)
	}
	nc, err := nats.Connect(first.nats, nats.Token(first.client(t)["NATS_TOKEN"]))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()

	var asked atomic.Int64
	done := make(chan struct{})
	var askers sync.WaitGroup
	for asker := range 16 {
		askers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				ticket := fmt.Sprintf("ticket-%d-%d", asker, i)
				body, err := json.Marshal(messages.ResolveCodeRequest{OpenID: "o", CodeTicket: ticket})
				if err != nil {
					t.Error(err)
					return
				}
				reply, err := nc.Request("wechat.code.resolve", body, patience)
				if err != nil {
					t.Errorf("request %d: %v", asked.Load(), err)
					return
				}
				var code messages.Code
				if json.Unmarshal(reply.Data, &code) != nil || code.Code != wechattest.CodeOf(ticket) {
					t.Errorf("request %d: %v %s", asked.Load(), reply.Header, reply.Data)
					return
				}
				asked.Add(1)
			}
		})
	}
	more := func() {
		t.Helper()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for want, ctx := asked.Load()+300, testContext(t); asked.Load() < want && !t.Failed(); {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatal("no more answers")
			}
		}
	}
	for _, w := range others {
		more()
		if code := w.stop(t, syscall.SIGTERM); code != 0 {
			t.Errorf("exit code %d after SIGTERM", code)
		}
	}
	more()
	close(done)
	askers.Wait()
	if n := sim.calls(t, appid)["tickettocode"]; n != int(asked.Load()) {
		t.Errorf("%d answers cost %d calls", asked.Load(), n)
	}
}
