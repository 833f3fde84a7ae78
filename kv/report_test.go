package kv

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/messages"
)

func TestTransportReportsADeadTokenOnceHoweverManyMeetIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f *transportFixture
		f = newTransportFixture(t, func(context.Context) (messages.Refreshed, error) {
			sleep(100 * time.Millisecond)
			f.publish(2)
			return messages.Refreshed{Refreshed: true, Reason: messages.ReasonRefreshed}, nil
		})
		dead, began := f.publishDead(1), time.Now()
		second := f.reader.Transport("wx1")
		second.Base = f.wechat
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				one := *f
				if i%2 == 1 {
					one.Transport = second
				}
				sleep(time.Duration(i) * 200 * time.Microsecond) // a half of them after the refresh
				body := fmt.Sprint("body ", i)
				one.expect(t.Context(), strings.NewReader(body), echo(body))
			})
		}
		wg.Wait()
		sum := sha256.Sum256([]byte(dead))
		want := []messages.RefreshCredentialRequest{
			{AppID: "wx1", Kind: "access_token", ValueSHA256: hex.EncodeToString(sum[:]), SentAt: began},
		}
		if diff := cmp.Diff(want, f.fleet.reports()); diff != "" {
			t.Errorf("the reports: %s", diff)
		}
		if n := f.wechat.open.Load(); n != 0 {
			t.Errorf("the bodies of %d answers were not closed", n)
		}
	})
}

// Another system kills each new token at once, as far as the fifth.
func TestTransportTriesFiveTokensAndReturnsTheLastAnswerWhateverItIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f *transportFixture
		generation, alive := uint64(1), uint64(4)
		f = newTransportFixture(t, func(ctx context.Context) (messages.Refreshed, error) {
			if generation++; generation == alive {
				f.publish(generation)
			} else {
				f.publishDead(generation)
			}
			return refreshed(ctx)
		})
		f.publishDead(1)
		f.expect(t.Context(), nil, echo(""))
		f.checkCounts(4, 3)
		alive = 0
		f.publishDead(5)
		generation = 5
		f.expect(t.Context(), nil, deadAnswer)
		f.checkCounts(4+5, 3+4)
	})
}

// What the workers say of a token counts for the calls that were sent before they were asked, and for no other.
func TestTransportReportsAgainATokenThatMayHaveDiedSinceWeChatAcceptedIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransportFixture(t, replies(messages.Refreshed{Reason: messages.ReasonAlive}, nil))
		f.publishDead(1)
		for reports := range 3 {
			f.expect(t.Context(), nil, deadAnswer)
			f.checkReports(reports + 1)
			sleep(time.Millisecond)
		}
		f.fleet.answer = func(ctx context.Context) (messages.Refreshed, error) { f.publish(2); return refreshed(ctx) }
		f.expect(t.Context(), nil, echo(""))
		f.checkReports(4)
	})
}

// A call that was sent while the report of an earlier one was under way makes a report of its own if WeChat accepts the
// token: it may have died in between.
func TestRefusedCallDoesNotTakeTheAnswerToTheReportOfAnEarlierCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f *transportFixture
		f = newTransportFixture(t, func(ctx context.Context) (messages.Refreshed, error) {
			sleep(100 * time.Millisecond)
			if len(f.fleet.reports()) == 1 {
				return messages.Refreshed{Reason: messages.ReasonAlive}, nil
			}
			f.publish(2)
			return refreshed(ctx)
		})
		f.publishDead(1)
		var calls sync.WaitGroup
		calls.Go(func() { f.expect(t.Context(), nil, deadAnswer) })
		sleep(50 * time.Millisecond)
		calls.Go(func() { f.expect(t.Context(), nil, echo("")) })
		calls.Wait()
		f.checkReports(2)
	})
}

func TestTransportDoesNotReportATokenThatIsNoLongerCurrent(t *testing.T) {
	t.Parallel()
	f := newTransportFixture(t, refreshed)
	// next is published while the answer is on its way.
	whileAnswering := func(next uint64) roundTripper {
		return func(req *http.Request) (*http.Response, error) {
			resp, err := f.wechat.RoundTrip(req)
			f.publish(next)
			return resp, err
		}
	}
	f.publishDead(1)
	f.Base = whileAnswering(2)
	f.expect(context.Background(), strings.NewReader("x"), echo("x"))
	f.publishDead(3)
	f.Base = whileAnswering(4)
	f.expect(context.Background(), &onlyOnce{Reader: strings.NewReader("x")}, deadAnswer)
	f.checkReports(0)
}

func TestTransportReportsButDoesNotRepeatWhatCannotBeSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var f *transportFixture
		f = newTransportFixture(t, func(ctx context.Context) (messages.Refreshed, error) {
			<-release
			f.publish(2)
			return refreshed(ctx)
		})
		f.publishDead(1)
		began := time.Now()
		f.expect(t.Context(), &onlyOnce{Reader: strings.NewReader("x")}, deadAnswer)
		checkWaited(t, began, 0)
		synctest.Wait() // until the report is sent
		f.checkCounts(1, 1)
		close(release)
		synctest.Wait()
		f.expect(t.Context(), &onlyOnce{Reader: strings.NewReader("x")}, echo("x"))
		f.checkCounts(2, 1)
	})
}

func TestTransportReturnsWeChatsAnswerIfGetBodyFails(t *testing.T) {
	t.Parallel()
	f := newTransportFixture(t, refreshed)
	f.publishDead(1)
	req, err := http.NewRequest(http.MethodPost, apiURL, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("gone") }
	f.fleet.answer = func(ctx context.Context) (messages.Refreshed, error) { f.publish(2); return refreshed(ctx) }
	got, err := f.do(req)
	f.check(got, err, deadAnswer)
}

func TestTransportReturnsWeChatsAnswerAtOnceIfTheFleetCannotHelp(t *testing.T) {
	t.Parallel()
	throttled := messages.Errorf(messages.Throttled, "too often").After(30 * time.Second)
	for name, answer := range map[string]answerFunc{
		"alive":         replies(messages.Refreshed{Reason: messages.ReasonAlive}, nil),
		"unchanged":     replies(messages.Refreshed{Reason: messages.ReasonUnchanged}, nil),
		"throttled":     replies(messages.Refreshed{}, throttled),
		"no responders": replies(messages.Refreshed{}, nats.ErrNoResponders),
		"a panic":       func(context.Context) (messages.Refreshed, error) { panic("a bug") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newTransportFixture(t, answer)
				f.publishDead(1)
				began := time.Now()
				for range 100 {
					f.expect(t.Context(), nil, deadAnswer)
				}
				checkWaited(t, began, 0)
				f.checkCounts(100, 1)
			})
		})
	}
}

func TestTransportDoesNotRepeatAReportForAsLongAsTheFleetAsks(t *testing.T) {
	t.Parallel()
	after := func(d time.Duration) answerFunc {
		return replies(messages.Refreshed{}, messages.Errorf(messages.Throttled, "too often").After(d))
	}
	for name, tt := range map[string]struct {
		answer answerFunc
		want   time.Duration
	}{
		"no reason":        {replies(messages.Refreshed{Reason: messages.ReasonUnchanged}, nil), 10 * time.Second},
		"30 seconds":       {after(30 * time.Second), 30 * time.Second},
		"at most a minute": {after(5 * time.Hour), time.Minute},
		"at least 1 s":     {after(1), time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newTransportFixture(t, tt.answer)
				f.publishDead(1)
				for _, step := range []struct {
					pause   time.Duration
					reports int
				}{{0, 1}, {tt.want - 1, 1}, {2, 2}} {
					sleep(step.pause)
					f.expect(t.Context(), nil, deadAnswer)
					f.checkReports(step.reports)
				}
			})
		})
	}
}

func TestTransportContinuesAsSoonAsTheReaderHoldsAnotherToken(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]answerFunc{
		"refreshed":   refreshed,
		"not current": replies(messages.Refreshed{Reason: messages.ReasonNotCurrent}, nil),
		"no worker answers": func(ctx context.Context) (messages.Refreshed, error) {
			<-ctx.Done()
			return messages.Refreshed{}, ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newTransportFixture(t, answer)
				f.reader.cfg.OnError = func(err error) { t.Errorf("OnError received %v", err) }
				f.publishDead(1)
				began := time.Now()
				time.AfterFunc(time.Second, func() { f.publish(2) })
				f.expect(t.Context(), nil, echo(""))
				checkWaited(t, began, time.Second)
				synctest.Wait() // until the report has ended
			})
		})
	}
}

// A recreated bucket may begin with lower generations.
func TestTransportWaitsForAnotherValueNotForAHigherGeneration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransportFixture(t, refreshed)
		dead := credential(9, 2*time.Second)
		put(t, f.reader, dead)
		time.AfterFunc(time.Second, func() { put(t, f.reader, dead) }) // a change without another value
		time.AfterFunc(3*time.Second, func() { f.publish(1) })
		f.expect(t.Context(), nil, echo(""))
	})
}

// Otherwise the only sign of a missing permission would be refused calls.
func TestOnErrorReceivesAReportThatReachesNoWorker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			err  error
			want bool // OnError receives it
		}{
			{nats.ErrNoResponders, true},
			{context.DeadlineExceeded, true},
			{messages.ErrThrottled, false},
			{nil, false},
		} {
			f := newTransportFixture(t, replies(messages.Refreshed{Reason: messages.ReasonAlive}, tt.err))
			var problems []error
			f.reader.cfg.OnError = func(err error) { problems = append(problems, err) }
			dead := f.publishDead(1)
			f.expect(t.Context(), nil, deadAnswer)
			synctest.Wait()
			if !tt.want {
				if len(problems) > 0 {
					t.Errorf("%v: OnError received %v, want nothing", tt.err, problems)
				}
				continue
			}
			checkProblem(t, problems, tt.err, dead)
		}
	})
}

// checkProblem checks that OnError received one error, which does not show a token.
func checkProblem(t *testing.T, problems []error, want error, token string) {
	t.Helper()
	if len(problems) != 1 {
		t.Errorf("OnError received %v, want one error", problems)
		return
	}
	if !errors.Is(problems[0], want) {
		t.Errorf("OnError received %v, want %v", problems[0], want)
	}
	if strings.Contains(problems[0].Error(), token) {
		t.Errorf("OnError received an error that shows the token: %v", problems[0])
	}
}

// Nothing else would show such a panic. It may be one of a future nats.go, or of the service's own OnError.
func TestReportThatPanicsDoesNotEndTheService(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, twice := range map[string]bool{"in the report": false, "in OnError too": true} {
			t.Log(name)
			f := newTransportFixture(t, nil)
			dead := f.publishDead(1)
			f.fleet.answer = func(context.Context) (messages.Refreshed, error) { panic("a bug with " + dead) }
			var problems []error
			f.reader.cfg.OnError = func(err error) {
				problems = append(problems, err)
				if twice {
					panic("another bug")
				}
			}
			f.expect(t.Context(), nil, deadAnswer)
			synctest.Wait()
			checkProblem(t, problems, errReportPanic, dead)
		}
	})
}

// The workers know that a call was refused wrongly. A call that was sent a moment later may have been refused because
// the token has died since: it shares a report that is under way, but not that answer.
func TestAnswerThatATokenIsAliveCountsOnlyForEarlierCalls(t *testing.T) {
	t.Parallel()
	const value = "token"
	sent := time.Now().Add(-100 * time.Millisecond)
	for name, tc := range map[string]struct {
		after time.Duration
		leads bool
	}{"earlier": {-time.Millisecond, false}, "the same": {0, false}, "later": {50 * time.Millisecond, true}} {
		underWay := reports{last: map[string]*report{"wx1": {value: value, sentAt: sent, done: make(chan struct{})}}}
		if _, leads := underWay.join("wx1", value, sent.Add(tc.after)); leads {
			t.Errorf("%s: a call does not share the report that is under way", name)
		}
		alive := reports{last: map[string]*report{"wx1": {value: value, sentAt: sent, alive: true, done: closed()}}}
		if _, leads := alive.join("wx1", value, sent.Add(tc.after)); leads != tc.leads {
			t.Errorf("%s: the call makes a report of its own: %t", name, leads)
		}
	}
}

// closed is a closed channel.
func closed() chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}
