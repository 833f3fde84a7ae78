package worker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// NATS lets a request name any subject for its reply: with the worker's permissions it would be written into the bucket.
func TestReplyGoesNeitherIntoABucketNorToAService(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(nil)
	w.await(messages.AccessToken, 0)
	heard, err := w.nc.SubscribeSync("wechat.elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	replies := []string{
		"$KV.wechat.lease." + messages.Key(appid, messages.AccessToken), "$KV.wechat." + messages.Key(appid, messages.JSAPITicket), "$KV.wechat_ledger." + messages.Key(appid, messages.JSAPITicket),
		"$JS.API.STREAM.DELETE.KV_wechat", "wechat.elsewhere",
	}
	subjects := []string{"code.resolve", "credential.get", "credential.refresh", "jssdk.sign", "card.sign", "status"}
	for _, subject := range subjects {
		for _, of := range []string{"", "." + appid} {
			for _, reply := range replies {
				if err := w.nc.PublishRequest("wechat."+subject+of, reply, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	page := w.pages()
	for _, subject := range subjects {
		s.eventually("all requests of "+subject+" are dropped", func() bool {
			_, metrics := page("/metrics")
			return strings.Contains(metrics, fmt.Sprintf("wxkeeper_requests_total{outcome=%q,subject=%q} %d\n", outcomeDropped, subject, 2*len(replies)))
		})
	}
	// status answers one request after another: what it has not sent before this answer it has not sent.
	for _, subject := range []string{"wechat.status", "wechat.status." + appid} {
		if _, err := w.nc.RequestWithContext(s.context(), subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n, _, _ := heard.Pending(); n != 0 {
		t.Errorf("%d replies came to another service", n)
	}
	js, err := jetstreamOf(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, bucket := range []string{"wechat", "wechat_ledger"} {
		stream, err := js.Stream(s.context(), "KV_"+bucket)
		if err != nil {
			t.Fatal(err)
		}
		for _, reply := range replies[1:3] {
			if m, err := stream.GetLastMsgForSubject(s.context(), reply); err == nil {
				t.Errorf("%s holds %q", reply, m.Data)
			}
		}
	}
	if _, err := w.store.Acquire(s.context(), appid, messages.JSAPITicket, leaseFor(0)); err != nil {
		t.Error(err)
	}
}
