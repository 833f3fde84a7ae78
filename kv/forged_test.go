package kv

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

// forge writes anything under the key of a record, as nobody but workers should be able to.
func (p *publisher) forge(record any) {
	p.tb.Helper()
	body, err := json.Marshal(record)
	if err != nil {
		p.tb.Fatal(err)
	}
	kv, _ := p.credentials()
	if _, err := kv.Put(testContext(p.tb), "wx1.access_token", body); err != nil {
		p.tb.Fatal(err)
	}
}

// A record with a time or a generation that no worker writes would be preferred to every true one, until that time
// or permanently. One within the bounds is taken, and replaced by the next refresh.
func TestForgedRecordStopsNothing(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			p := newPublisher(t, srv)
			p.publish(credential(1, time.Hour))
			problems := make(chan error, 1000)
			cfg.OnError = func(err error) { problems <- err }
			r := startReader(t, srv, cfg)
			awaitToken(t, r.Reader, 0)

			future, absurd, other := credential(2, time.Hour), credential(math.MaxUint64, time.Hour), credential(2, time.Hour)
			future.ObtainedAt = future.ObtainedAt.Add(10 * 24 * time.Hour)
			future.ExpiresAt = future.ObtainedAt.Add(time.Hour)
			other.AppID = "wx2"
			for what, forged := range map[string]any{
				"obtained in ten days": future, "generation 2^64-1": absurd, "a record of another account": other,
				"junk": "junk",
			} {
				p.forge(forged)
				select {
				case err := <-problems:
					if strings.Contains(err.Error(), "VALUE") {
						t.Errorf("%s: the error shows the value: %v", what, err)
					}
				case <-testContext(t).Done():
					t.Fatalf("%s is not reported", what)
				}
				checkGeneration(t, r.Reader, what, 1)
			}
			p.publish(credential(2, time.Hour))
			awaitToken(t, r.Reader, 1)

			forged := credential(messages.MaxGeneration, messages.MaxLife)
			p.forge(forged)
			awaitToken(t, r.Reader, 2)
			true3 := credential(3, time.Hour)
			true3.ObtainedAt = forged.ObtainedAt.Add(time.Millisecond)
			p.publish(true3)
			if _, err := r.await(testContext(t), "wx1", messages.AccessToken, func(c messages.Credential) bool {
				return c.Value == true3.Value
			}); err != nil {
				t.Error("the next refresh does not replace the forged record:", err)
			}
		})
	}
}

// Whoever may publish on the subject of one account, or direct a reply there, must not put his token in front of the
// service of another account, whose calls would then succeed in his name.
func TestPublishedMessageChangesNothing(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			p := newPublisher(t, srv)
			p.publish(credential(1, time.Hour))
			r := startReader(t, srv, cfg)
			awaitToken(t, r.Reader, 0)
			changes := r.observe()

			attacker, mine, his := srv.Connect(), credential(7, time.Hour), credential(8, time.Hour)
			his.AppID = "wx2"
			for _, c := range []messages.Credential{mine, his} {
				body, err := json.Marshal(c)
				if err != nil {
					t.Fatal(err)
				}
				m := nats.NewMsg("wechat.published.wx1.access_token")
				m.Data = body
				m.Header.Set("Nats-Sequence", "18446744073709551615")
				m.Header.Set("Nats-Time-Stamp", time.Now().Add(time.Minute).Format(time.RFC3339Nano))
				if err := attacker.PublishMsg(m); err != nil {
					t.Fatal(err)
				}
			}
			if err := attacker.Flush(); err != nil {
				t.Fatal(err)
			}
			revision := p.publish(credential(2, time.Hour))
			awaitChange(t, changes, "the true change is not delivered", func(c Change) bool {
				if c.Record != nil && c.Record.Generation > 2 {
					t.Errorf("the forged record %v is delivered", c.Record)
				}
				return c.Revision == revision
			})
			checkGeneration(t, r.Reader, "after the true change", 2)
		})
	}
}

// The workers put the true record back, with a lower generation than the forged one. WeChat refuses the forged value,
// and the reply to the report says which record is the current one.
func TestTransportTakesTheRecordThatTheWorkersCallCurrent(t *testing.T) {
	t.Parallel()
	for name, early := range map[string]bool{"delivered before the reply": true, "delivered after it": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newTransportFixture(t, nil)
				current := credential(5, time.Hour)
				f.wechat.set(current.Value, true)
				put(t, f.reader, current)
				sleep(time.Minute)
				forged := credential(messages.MaxGeneration, time.Hour)
				forged.Value, forged.Revision = "FORGED", 6
				put(t, f.reader, forged)
				current.Revision = 7
				if early {
					put(t, f.reader, current)
				}
				f.fleet.answer = func(context.Context) (messages.Refreshed, error) {
					if !early {
						time.AfterFunc(time.Second, func() { put(t, f.reader, current) })
					}
					return messages.Refreshed{Reason: messages.ReasonNotCurrent, Revision: 7, Generation: 5}, nil
				}
				f.expect(t.Context(), nil, echo(""))
				f.checkCounts(2, 1)
				checkGeneration(t, f.reader, "after the report", 5)
				synctest.Wait()
			})
		})
	}
}
