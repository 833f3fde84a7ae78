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

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/messages"
)

func TestTransportReportsADeadTokenOnceHoweverManyMeetIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s *scene
		s = newScene(t, func(context.Context) (messages.Refreshed, error) {
			sleep(100 * time.Millisecond)
			s.apply(2)
			return messages.Refreshed{Refreshed: true, Reason: messages.ReasonRefreshed}, nil
		})
		dead := s.apply(1)
		s.wechat.kill(dead)
		second := s.reader.Transport("wx1")
		second.Base = s.wechat
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				one := *s
				if i%2 == 1 {
					one.Transport = second
				}
				sleep(time.Duration(i) * 200 * time.Microsecond) // half of them after the refresh
				body := fmt.Sprint("body ", i)
				if got, err := one.get(t.Context(), strings.NewReader(body)); err != nil || got != `{"echo":"`+body+`"}` {
					t.Errorf("%s, %v", got, err)
				}
			})
		}
		wg.Wait()
		sum := sha256.Sum256([]byte(dead))
		want := messages.RefreshCredentialRequest{AppID: "wx1", Kind: "access_token", ValueSHA256: hex.EncodeToString(sum[:])}
		if n := s.fleet.reports(); n != 1 || s.fleet.reported[0] != want {
			t.Errorf("%d reports: %+v", n, s.fleet.reported)
		}
		if n := s.wechat.open.Load(); n != 0 {
			t.Errorf("%d answers were left open", n)
		}
	})
}

func TestTransportRepeatsOnceAndReturnsTheSecondAnswerWhateverItIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s *scene
		s = newScene(t, func(ctx context.Context) (messages.Refreshed, error) {
			s.wechat.kill(s.apply(2))
			return refreshed(ctx)
		})
		s.wechat.kill(s.apply(1))
		if got, err := s.get(t.Context(), nil); err != nil || got != deadAnswer {
			t.Errorf("%s, %v", got, err)
		}
		if n := len(s.wechat.called()); n != 2 {
			t.Errorf("%d calls, want 2", n)
		}
		s.fleet.answer = func(ctx context.Context) (messages.Refreshed, error) { s.apply(3); return refreshed(ctx) }
		if got, err := s.get(t.Context(), nil); err != nil || got != `{"echo":""}` || s.fleet.reports() != 2 {
			t.Errorf("the next call: %s, %v, %d reports; want the second dead token reported too", got, err, s.fleet.reports())
		}
	})
}

func TestTransportDoesNotReportATokenThatIsNotCurrentAnyMore(t *testing.T) {
	t.Parallel()
	s := newScene(t, refreshed)
	dead := s.apply(1)
	s.wechat.kill(dead)
	s.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
		resp, err := s.wechat.RoundTrip(req)
		s.apply(2) // while the answer is on its way
		return resp, err
	})
	if got, err := s.get(context.Background(), strings.NewReader("x")); err != nil || got != `{"echo":"x"}` {
		t.Errorf("%s, %v", got, err)
	}
	s.wechat.kill(s.apply(3))
	s.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
		resp, err := s.wechat.RoundTrip(req)
		s.apply(4)
		return resp, err
	})
	if got, err := s.get(context.Background(), &closing{Reader: strings.NewReader("x")}); err != nil || got != deadAnswer {
		t.Errorf("what cannot be sent again: %s, %v", got, err)
	}
	if n := s.fleet.reports(); n != 0 {
		t.Errorf("%d reports", n)
	}
}

func TestTransportReportsButDoesNotRepeatWhatCannotBeSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var s *scene
		s = newScene(t, func(ctx context.Context) (messages.Refreshed, error) {
			<-release
			s.apply(2)
			return refreshed(ctx)
		})
		s.wechat.kill(s.apply(1))
		began := time.Now()
		if got, err := s.get(t.Context(), &closing{Reader: strings.NewReader("x")}); err != nil || got != deadAnswer {
			t.Errorf("%s, %v", got, err)
		}
		if waited := time.Since(began); waited != 0 || len(s.wechat.called()) != 1 {
			t.Errorf("%d calls, in %s; want one, at once", len(s.wechat.called()), waited)
		}
		close(release)
		synctest.Wait()
		if got, err := s.get(t.Context(), &closing{Reader: strings.NewReader("x")}); err != nil || got != `{"echo":"x"}` || s.fleet.reports() != 1 {
			t.Errorf("the next call: %s, %v, %d reports", got, err, s.fleet.reports())
		}
	})
}

func TestTransportReturnsWeChatsAnswerWhereTheBodyCannotBeHadAgain(t *testing.T) {
	t.Parallel()
	s := newScene(t, refreshed)
	s.wechat.kill(s.apply(1))
	req, err := http.NewRequest(http.MethodPost, apiURL, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("gone") }
	s.fleet.answer = func(ctx context.Context) (messages.Refreshed, error) { s.apply(2); return refreshed(ctx) }
	if got, err := s.do(req); err != nil || got != deadAnswer {
		t.Errorf("%s, %v", got, err)
	}
}

func TestTransportReturnsWeChatsAnswerAtOnceWhereTheFleetCannotHelp(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(context.Context) (messages.Refreshed, error){
		"alive":     reason(messages.ReasonAlive),
		"unchanged": reason(messages.ReasonUnchanged),
		"throttled": func(context.Context) (messages.Refreshed, error) {
			return messages.Refreshed{}, messages.Errorf(messages.Throttled, "too often").After(30 * time.Second)
		},
		"no responders": func(context.Context) (messages.Refreshed, error) { return messages.Refreshed{}, nats.ErrNoResponders },
		"a panic":       func(context.Context) (messages.Refreshed, error) { panic("a bug") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, answer)
				s.wechat.kill(s.apply(1))
				began := time.Now()
				for range 100 {
					if got, err := s.get(t.Context(), nil); err != nil || got != deadAnswer {
						t.Fatalf("%s, %v", got, err)
					}
				}
				if waited := time.Since(began); waited != 0 {
					t.Errorf("it waited %s", waited)
				}
				if calls, reports := len(s.wechat.called()), s.fleet.reports(); calls != 100 || reports != 1 {
					t.Errorf("%d calls and %d reports, want 100 and 1", calls, reports)
				}
			})
		})
	}
}

func TestTransportRemembersTheOutcomeOfAReportForAsLongAsItStands(t *testing.T) {
	t.Parallel()
	after := func(d time.Duration) func(context.Context) (messages.Refreshed, error) {
		return func(context.Context) (messages.Refreshed, error) {
			return messages.Refreshed{}, messages.Errorf(messages.Throttled, "too often").After(d)
		}
	}
	for name, c := range map[string]struct {
		answer func(context.Context) (messages.Refreshed, error)
		stands time.Duration
	}{
		"alive":       {reason(messages.ReasonAlive), 10 * time.Second},
		"throttled":   {after(30 * time.Second), 30 * time.Second},
		"for hours":   {after(5 * time.Hour), time.Minute},
		"for no time": {after(1), time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, c.answer)
				s.wechat.kill(s.apply(1))
				for i, at := range []time.Duration{0, c.stands - 1, 2} {
					sleep(at)
					if _, err := s.get(t.Context(), nil); err != nil {
						t.Fatal(err)
					}
					if n, want := s.fleet.reports(), 1+i/2; n != want {
						t.Errorf("%d reports after %d requests, want %d", n, i+1, want)
					}
				}
			})
		})
	}
}

func TestTransportGoesOnAsSoonAsTheReaderShowsAnotherToken(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(context.Context) (messages.Refreshed, error){
		"refreshed":   refreshed,
		"not current": reason(messages.ReasonNotCurrent),
		"no worker answers": func(ctx context.Context) (messages.Refreshed, error) {
			<-ctx.Done()
			return messages.Refreshed{}, ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, answer)
				s.reader.cfg.OnError = func(err error) { t.Errorf("told as trouble: %v", err) }
				s.wechat.kill(s.apply(1))
				began := time.Now()
				time.AfterFunc(time.Second, func() { s.apply(2) })
				if got, err := s.get(t.Context(), nil); err != nil || got != `{"echo":""}` {
					t.Errorf("%s, %v", got, err)
				}
				if waited := time.Since(began); waited != time.Second {
					t.Errorf("it waited %s", waited)
				}
				synctest.Wait() // for the report's end
			})
		})
	}
}

// A bucket made anew may begin with lower generations.
func TestTransportWaitsForAnotherValueNotForAHigherGeneration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, refreshed)
		dead := credential(9, 2*time.Second)
		s.reader.Apply(dead)
		time.AfterFunc(time.Second, func() { s.reader.Apply(dead) }) // a change that brings nothing new
		time.AfterFunc(3*time.Second, func() { s.apply(1) })
		if got, err := s.get(t.Context(), nil); err != nil || got != `{"echo":""}` {
			t.Errorf("%s, %v", got, err)
		}
	})
}

// Otherwise a permission that is missing would show itself as refused calls alone.
func TestReportThatReachesNobodyIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			err  error
			told bool
		}{{nats.ErrNoResponders, true}, {context.DeadlineExceeded, true}, {messages.ErrThrottled, false}, {nil, false}} {
			s := newScene(t, func(context.Context) (messages.Refreshed, error) {
				return messages.Refreshed{Reason: messages.ReasonAlive}, tt.err
			})
			var troubles []error
			s.reader.cfg.OnError = func(err error) { troubles = append(troubles, err) }
			dead := s.apply(1)
			s.wechat.kill(dead)
			if got, err := s.get(t.Context(), nil); err != nil || got != deadAnswer {
				t.Errorf("%s, %v", got, err)
			}
			synctest.Wait()
			if (len(troubles) == 1) != tt.told || tt.told && (!errors.Is(troubles[0], tt.err) || strings.Contains(troubles[0].Error(), dead)) {
				t.Errorf("where the report ends with %v, this is told: %v", tt.err, troubles)
			}
		}
	})
}

// A panic tells itself nowhere else: it may be of a nats.go to come, or of the service's own OnError.
func TestReportThatPanicsIsToldAndEndsNoService(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, again := range map[string]bool{"once": false, "in OnError too": true} {
			s := newScene(t, nil)
			dead := s.apply(1)
			s.fleet.answer = func(context.Context) (messages.Refreshed, error) { panic("a bug with " + dead) }
			var troubles []error
			s.reader.cfg.OnError = func(err error) {
				troubles = append(troubles, err)
				if again {
					panic("another")
				}
			}
			s.wechat.kill(dead)
			if got, err := s.get(t.Context(), nil); err != nil || got != deadAnswer {
				t.Errorf("%s: %s, %v", name, got, err)
			}
			synctest.Wait()
			if len(troubles) != 1 || !errors.Is(troubles[0], errReportPanic) || strings.Contains(troubles[0].Error(), dead) {
				t.Errorf("%s: this is told: %v", name, troubles)
			}
		}
	})
}
