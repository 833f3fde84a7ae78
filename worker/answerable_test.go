package worker

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// NATS checks no permission for the reply subject of a request: with the worker's permissions the reply would
// be written into a bucket.
func TestReplyGoesNeitherIntoABucketNorToAService(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(nil)
	w.await(messages.AccessToken, 0)
	elsewhere, err := w.nc.SubscribeSync("wechat.elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	ticket := messages.Key(appid, messages.JSAPITicket)
	inBuckets := map[string]string{"wechat": "$KV.wechat." + ticket, "wechat_ledger": "$KV.wechat_ledger." + ticket}
	replies := []string{
		inBuckets["wechat"], inBuckets["wechat_ledger"], "$KV.wechat.lease." +
			messages.Key(appid, messages.AccessToken),
		"wechat.elsewhere",
	}
	for _, subject := range messages.Subjects {
		for _, account := range []string{"", "." + appid} {
			for _, reply := range replies {
				if err := w.nc.PublishRequest("wechat."+subject+account, reply, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	// nats-server since 2.15.3 does not pass on such a request. Older servers do.
	api := requestOf{reply: "$JS.API.STREAM.DELETE.KV_wechat"}
	w.service.answerable(messages.SubjectStatus, func(micro.Request) {
		t.Errorf("a request is answered to %s", api.reply)
	})(api)
	for _, subject := range messages.Subjects {
		const metric = "wxkeeper_requests_total{outcome=%q,subject=%q} %d\n"
		n := 2 * len(replies)
		if subject == messages.SubjectStatus {
			n++ // api
		}
		want := fmt.Sprintf(metric, outcomeDropped, subject, n)
		f.eventually("all requests of "+subject+" are dropped", func() bool {
			_, metrics := w.page("/metrics")
			return strings.Contains(metrics, want)
		})
	}
	// status answers one request after another: a reply that was not sent before this one was not sent at all.
	for _, subject := range []string{"wechat.status", "wechat.status." + appid} {
		if _, err := w.nc.RequestWithContext(f.context(), subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n, _, _ := elsewhere.Pending(); n != 0 {
		t.Errorf("%d replies arrived at another service", n)
	}
	for bucket, reply := range inBuckets {
		if m, err := f.stream(bucket).GetLastMsgForSubject(f.context(), reply); err == nil {
			t.Errorf("%s holds %q", reply, m.Data)
		}
	}
	if _, err := w.store.Acquire(f.context(), appid, messages.JSAPITicket, leaseFor(time.Second)); err != nil {
		t.Errorf("the lease of the ticket: %v", err)
	}
}

// The micro library answers discovery itself. A user with the right to send it could fill the log.
func TestDiscoveryWithoutAReplySubjectDoesNotFillTheLog(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	lines := new(logLines)
	w := f.worker(func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(lines, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	for range 100 {
		if err := w.nc.Publish("$SRV.PING", nil); err != nil {
			t.Fatal(err)
		}
	}
	f.eventually("each is noticed", func() bool { return lines.count("subject=$SRV.PING") == 100 })
	if n := lines.count("level=ERROR"); n != 0 {
		t.Errorf("%d errors are logged", n)
	}
}
