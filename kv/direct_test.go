package kv

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

func TestFeedThatCannotWorkIsRefused(t *testing.T) {
	t.Parallel()
	for feed, want := range map[Feed]string{FeedDirect: "AppIDs", FeedRequests: "AppIDs", "stream": "no feed"} {
		_, err := NewReader(new(nats.Conn), ReaderConfig{Feed: feed})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", feed, err, want)
		}
	}
}

// A service that names its accounts needs no right to ask JetStream.
func TestReaderOfNamedAccountsRequestsThemFromTheWorkers(t *testing.T) {
	t.Parallel()
	srv, worker, shop := natstest.StartRestricted(t,
		[]string{"wechat.credential.get.wx1"}, []string{"wechat.published.wx1.*"})
	p := newPublisher(t, srv, worker)
	p.publish(credential(1, time.Hour))
	r, err := NewReader(srv.Connect(shop), ReaderConfig{AppIDs: []string{"wx1"}, OnError: func(err error) {
		t.Errorf("OnError received %v", err)
	}})
	if err != nil {
		t.Fatal(err)
	}
	runReader(t, r)
	awaitToken(t, r, 0)
	p.publish(credential(2, time.Hour))
	awaitToken(t, r, 1)
}

// A republished record is sent at most once. A record that was published while the Reader was not connected is
// read.
func TestPollingReaderReadsWhatItHasNotReceived(t *testing.T) {
	t.Parallel()
	for _, feed := range []Feed{FeedDirect, FeedRequests} {
		t.Run(string(feed), func(t *testing.T) {
			t.Parallel()
			srv := startGated(t)
			p := newPublisher(t, srv.Server)
			p.publish(credential(1, time.Hour))
			r := startReader(t, srv, ReaderConfig{Feed: feed, AppIDs: []string{"wx1"}})
			changes := r.observe()
			srv.gate.Hold()
			p.publish(credential(2, time.Hour))
			srv.gate.Cut()
			awaitToken(t, r.Reader, 1)
			// After another reconnection the Reader reads the same record again: that is not a change.
			srv.gate.Cut()
			p.publish(credential(3, time.Hour))
			awaitToken(t, r.Reader, 2)
			for _, want := range []uint64{2, 3} {
				checkRecord(t, awaitChange(t, changes, "there is no change", func(c Change) bool { return !c.Ready }), want)
			}
		})
	}
}

func TestPollingReaderNoticesThatARecordIsGone(t *testing.T) {
	t.Parallel()
	for _, feed := range []Feed{FeedDirect, FeedRequests} {
		t.Run(string(feed), func(t *testing.T) {
			t.Parallel()
			srv := startGated(t)
			p := newPublisher(t, srv.Server)
			r := startReader(t, srv, ReaderConfig{Feed: feed, AppIDs: []string{"wx1"}})
			changes := r.observe()
			isGone := func(c Change) bool { return c.Kind == messages.AccessToken && c.Record == nil }

			awaitRevision(t, changes, p.publish(credential(1, time.Hour)))
			kv, _ := p.credentials()
			if err := kv.Delete(testContext(t), "wx1.access_token"); err != nil {
				t.Fatal(err)
			}
			awaitChange(t, changes, "the deletion is not noticed", isGone)

			awaitRevision(t, changes, p.publish(credential(2, time.Hour)))
			p.purge()
			srv.gate.Cut() // so that the Reader reads at once
			awaitChange(t, changes, "the purge is not noticed", isGone)
			checkGeneration(t, r.Reader, "after the purge", 2)
		})
	}
}

// Subjects of permissions.
var (
	readOneAccount  = bucket.DirectGetAPI(messages.DefaultBucket, bucket.AccountKeys("wx1"))
	readAllAccounts = bucket.DirectGetAPI(messages.DefaultBucket, ">")
	allPublished    = messages.DefaultPrefix + ".published.>"
)

// The operator of such a Reader gives it few permissions, and must see which one is missing. The Reader does
// what it may.
func TestPollingReaderNamesTheMissingPermission(t *testing.T) {
	t.Parallel()
	const getOne, getAll = "wechat.credential.get.wx1", "wechat.credential.get.*"
	for name, tt := range map[string]struct {
		feed               Feed
		publish, subscribe []string
		want               string
	}{
		"direct, subscription": {
			feed: FeedDirect, publish: []string{readAllAccounts},
			want: `Subscription to "wechat.published.wx`,
		},
		"direct, reading one of the accounts": {
			feed: FeedDirect, publish: []string{readOneAccount}, subscribe: []string{allPublished},
			want: `Publish to "$JS.API.DIRECT.GET.KV_wechat.$KV.wechat.wx2.`,
		},
		"requests, subscription": {
			feed: FeedRequests, publish: []string{getAll},
			want: `Subscription to "wechat.published.wx`,
		},
		"requests, reading one of the accounts": {
			feed: FeedRequests, publish: []string{getOne}, subscribe: []string{allPublished},
			want: `Publish to "wechat.credential.get.wx2"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, worker, shop := natstest.StartRestricted(t, tt.publish, tt.subscribe)
			newPublisher(t, srv, worker).publish(credential(1, time.Hour))
			problems := make(chan error, 1000)
			r, err := NewReader(srv.Connect(shop), ReaderConfig{
				Feed: tt.feed, AppIDs: []string{"wx1", "wx2"}, OnError: func(err error) { problems <- err },
			})
			if err != nil {
				t.Fatal(err)
			}
			runReader(t, r)
			awaitToken(t, r, 0)
			for late := testContext(t).Done(); ; {
				select {
				case err := <-problems:
					if strings.Contains(err.Error(), tt.want) {
						return
					}
				case <-late:
					t.Fatalf("OnError is not called with %s; the health is %+v", tt.want, r.Health())
				}
			}
		})
	}
}
