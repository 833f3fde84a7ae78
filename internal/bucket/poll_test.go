package bucket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

// Subjects of permissions.
var (
	readOneAccount  = DirectGetAPI(messages.DefaultBucket, AccountKeys("wx1"))
	readAllAccounts = DirectGetAPI(messages.DefaultBucket, ">")
	allPublished    = messages.DefaultPrefix + ".published.>"
)

// The changes of the other accounts are delivered by the session that has begun, and not by reading again and
// again.
func TestAccountThatMayNotBeReadDoesNotDelayTheOthers(t *testing.T) {
	t.Parallel()
	srv, worker, shop := natstest.StartRestricted(t, []string{readOneAccount}, []string{allPublished})
	f := newFixture(t, srv.Connect(worker))
	events := followPoll(t, &Poll{NC: srv.Connect(shop), AppIDs: []string{"wx1", "wx2"}, ReadEvery: time.Hour})
	awaitEvent(t, events, "the refusal is not emitted", func(e Event) bool {
		return errors.Is(e.Down, nats.ErrPermissionViolation)
	})
	revision := f.publish(credential(1, time.Hour))
	e := awaitEvent(t, events, "the change of the other account is not emitted", func(e Event) bool {
		return e.Key != ""
	})
	if e.Revision != revision {
		t.Errorf("revision %d was emitted, want %d", e.Revision, revision)
	}
}

// A connection keeps its last error: the permission that was missing then may have been granted since.
func TestRefusalBeforeTheSessionIsIgnored(t *testing.T) {
	t.Parallel()
	srv, worker, shop := natstest.StartRestricted(t, []string{readAllAccounts}, []string{"wechat.published.*.*"})
	newFixture(t, srv.Connect(worker))
	nc := srv.Connect(shop)
	sub, err := nc.SubscribeSync("wechat.published.wx1.*.more")
	if err == nil {
		defer func() { _ = sub.Unsubscribe() }()
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.LastError(); !errors.Is(err, nats.ErrPermissionViolation) {
		t.Fatalf("the last error is %v, want a refusal", err)
	}
	events := followPoll(t, &Poll{NC: nc, AppIDs: []string{"wx1"}})
	awaitEvent(t, events, "the feed does not start", func(e Event) bool {
		if errors.Is(e.Down, nats.ErrPermissionViolation) {
			t.Errorf("the feed is down because of %q", e.Down)
		}
		return e.Up
	})
}

// A republished record is sent once, and may be lost while all connections are up.
func TestPollReadsAllRecordsAgainPeriodically(t *testing.T) {
	t.Parallel()
	srv, gate := natstest.Start(t), natstest.NewGate()
	f := newFixture(t, srv.Connect())
	events := followPoll(t, &Poll{
		NC: srv.Connect(gate.Option()), AppIDs: []string{"wx1"}, ReadEvery: 50 * time.Millisecond,
	})
	awaitEvent(t, events, "the feed does not start", isUp)
	lost := gate.Miss(messages.PublishedSubject(messages.DefaultPrefix, "wx1", messages.AccessToken), 1)
	revision := f.publish(credential(1, time.Hour))
	<-lost
	awaitEvent(t, events, "the record whose message was lost is not read", isRecord(revision))
}

// A network that silently drops packets is noticed also if the next read of all records is far away, and in the
// middle of a read of many accounts.
func TestPollNoticesASilentConnection(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	newFixture(t, srv.Connect())
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprint("wx", i))
	}
	for name, p := range map[string]*Poll{
		"idle":    {AppIDs: []string{"wx1"}, ReadEvery: time.Hour},
		"reading": {AppIDs: many, ReadEvery: time.Millisecond, PingEvery: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gate := natstest.NewGate()
			p.NC = srv.Connect(gate.Option())
			events := followPoll(t, p)
			awaitEvent(t, events, "the feed does not start", isUp)
			gate.Hold()
			e := awaitEvent(t, events, "the silence is not noticed", isDown)
			if !errors.Is(e.Down, errDisconnected) {
				t.Errorf("the feed is down because of %q, want errDisconnected", e.Down)
			}
			gate.Open()
			awaitEvent(t, events, "the feed does not start again", isUp)
		})
	}
}

// answerRequests answers the requests for credentials of wx1 as a worker does.
func answerRequests(t *testing.T, nc *nats.Conn, answer func(messages.Kind) (*messages.Credential, error)) {
	t.Helper()
	subject := messages.DefaultPrefix + "." + messages.SubjectCredentialGet + ".wx1"
	_, err := nc.Subscribe(subject, func(m *nats.Msg) {
		var req messages.GetCredentialRequest
		if err := json.Unmarshal(m.Data, &req); err != nil {
			t.Error(err)
		}
		reply := nats.NewMsg(m.Reply)
		reply.Header.Set(messages.HeaderReply, messages.ReplyVersion)
		var body any
		c, err := answer(req.Kind)
		body = c
		if refusal, ok := errors.AsType[*messages.Error](err); ok {
			reply.Header, body = refusal.Header(), refusal
		}
		if reply.Data, err = json.Marshal(body); err != nil {
			t.Error(err)
		}
		_ = nc.PublishMsg(reply)
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// stored is the record of the bucket, as a worker answers it.
func (f *fixture) stored(kind messages.Kind) (*messages.Credential, error) {
	e, err := f.kv.Get(context.Background(), messages.Key("wx1", kind))
	if err != nil {
		return nil, messages.Errorf(messages.NoCredential, "there is none")
	}
	c := new(messages.Credential)
	err = json.Unmarshal(e.Value(), c)
	c.Revision = e.Revision()
	return c, err
}

// A user that may publish there, or direct a reply there, can send what it likes.
func TestPublishedMessageIsAHintAndNeverAValue(t *testing.T) {
	t.Parallel()
	for name, records := range map[string]func(*nats.Conn) Records{
		"direct":   func(nc *nats.Conn) Records { return Direct(nc, "", messages.DefaultBucket) },
		"requests": func(nc *nats.Conn) Records { return Requests(nc, messages.DefaultPrefix) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			f := newFixture(t, srv.Connect())
			answerRequests(t, srv.Connect(), f.stored)
			nc := srv.Connect()
			events := followPoll(t, &Poll{NC: nc, AppIDs: []string{"wx1"}, Records: records(nc), ReadEvery: time.Hour})
			awaitEvent(t, events, "the feed does not start", isUp)
			revisions := map[uint64]bool{f.publish(credential(1, time.Hour)): true}
			awaitEvent(t, events, "the record is not emitted", func(e Event) bool { return e.Key != "" })

			attacker := srv.Connect()
			other, forged := credential(1, time.Hour), credential(2, time.Hour)
			other.AppID = "wx2"
			for _, body := range [][]byte{encode(t, other), encode(t, forged), []byte("{"), nil} {
				for _, h := range []nats.Header{
					nil, {"Nats-Sequence": {"18446744073709551615"}, "Nats-Time-Stamp": {"2999-01-01T00:00:00Z"}},
					{"Nats-Sequence": {"7"}, "KV-Operation": {"DEL"}},
				} {
					m := &nats.Msg{Subject: "wechat.published.wx1.access_token", Data: body, Header: h}
					if err := attacker.PublishMsg(m); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := attacker.Flush(); err != nil {
				t.Fatal(err)
			}
			last := f.publish(credential(3, time.Hour))
			revisions[last] = true
			for e := (Event{}); e.Revision != last; {
				e = awaitEvent(t, events, "the next record is not emitted", func(e Event) bool { return e.Key != "" })
				if !revisions[e.Revision] || e.Removed {
					t.Fatalf("%+v is emitted", e)
				}
			}
		})
	}
}

func TestReplyThatIsNotTheRequestedRecordIsIgnoredAndReported(t *testing.T) {
	t.Parallel()
	good := credential(1, time.Hour)
	other, kind, dead, high := good, good, credential(1, 0), good
	other.AppID, kind.Kind, high.Generation = "wx2", messages.WXCardTicket, messages.MaxGeneration+1
	for name, tt := range map[string]struct {
		reply *messages.Credential
		err   error
		want  error
	}{
		"of another account":   {&other, nil, messages.ErrOtherRecord},
		"of another kind":      {&kind, nil, messages.ErrOtherRecord},
		"without a life":       {&dead, nil, messages.ErrInvalidCredential},
		"an absurd generation": {&high, nil, messages.ErrInvalidCredential},
		"null":                 {nil, nil, messages.ErrReply},
		"an unknown account":   {nil, messages.ErrUnknownAccount, messages.ErrUnknownAccount},
		"a worker is full":     {nil, messages.ErrOverloaded, messages.ErrOverloaded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			answerRequests(t, srv.Connect(), func(k messages.Kind) (*messages.Credential, error) {
				if k != messages.AccessToken {
					return nil, messages.ErrNotConfigured
				}
				return tt.reply, tt.err
			})
			nc := srv.Connect()
			events := followPoll(t, &Poll{NC: nc, AppIDs: []string{"wx1"}, Records: Requests(nc, messages.DefaultPrefix)})
			e := awaitEvent(t, events, "the reply is not reported", func(e Event) bool { return e.Down != nil || e.Key != "" })
			if !errors.Is(e.Down, tt.want) {
				t.Errorf("%+v is emitted, want that the feed is down because of %v", e, tt.want)
			}
		})
	}
}

// Not every account has tickets.
func TestAnswerThatThereIsNoCredentialIsNoTrouble(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	answerRequests(t, srv.Connect(), func(k messages.Kind) (*messages.Credential, error) {
		if k == messages.AccessToken {
			return nil, messages.ErrNoCredential
		}
		return nil, messages.ErrNotConfigured
	})
	nc := srv.Connect()
	events := followPoll(t, &Poll{NC: nc, AppIDs: []string{"wx1"}, Records: Requests(nc, messages.DefaultPrefix)})
	awaitEvent(t, events, "the snapshot does not become complete", func(e Event) bool {
		if e.Down != nil {
			t.Errorf("the feed is down because of %v", e.Down)
		}
		return e.Ready
	})
	awaitEvent(t, events, "the feed does not start", isUp)
}
