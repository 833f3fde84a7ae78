package worker

import (
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

func everything(c *Config) {
	c.Accounts[0].Tickets = []messages.Kind{messages.JSAPITicket, messages.WXCardTicket}
}

func classic(c *Config) { c.Accounts[0].TokenAPI = messages.SourceToken }

func TestPublishesEveryKindWithOneCallEach(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(everything)
	for _, k := range messages.Kinds {
		c := w.await(k, 0)
		if v := s.wechat.Judge(appid, string(k), c.Value); v != wechattest.Valid {
			t.Errorf("WeChat says of the %s: %v", k, v)
		}
		if left := time.Until(c.ExpiresAt); left < time.Hour || left > 2*time.Hour {
			t.Errorf("the %s lives for %s", k, left)
		}
	}
	if n := s.wechat.Calls("", ""); n != 3 {
		t.Errorf("%d upstream calls, want 3: %+v", n, s.wechat.Snapshot())
	}
}

func TestResolvesTheSampleOfTheSeedDocument(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(nil)
	w.await(messages.AccessToken, 0)
	code, err := w.resolve()
	if err != nil || code.Code != "8" || code.ApplicationID != 581865877 || code.CodeEnd != 200 {
		t.Errorf("%+v, %v", code, err)
	}
}

func TestRenewsBeforeTheEndAndNeverHandsOutADeadValue(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){"stable_token": everything, "token": func(c *Config) { everything(c); classic(c) }} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, wechattest.Config{TokenLife: 6 * time.Second, TicketLife: 6 * time.Second})
			w := s.worker(change)
			generation := map[messages.Kind]uint64{}
			for range 3 {
				for _, k := range messages.Kinds {
					c := w.await(k, generation[k])
					generation[k] = c.Generation
				}
				for _, k := range messages.Kinds {
					c, err := w.reader.Get(appid, k)
					if err != nil {
						t.Errorf("a gap: %v", err)
					} else if v := s.wechat.Judge(appid, string(k), c.Value); v != wechattest.Valid {
						t.Errorf("WeChat says of the %s: %v", k, v)
					}
				}
			}
		})
	}
}
