package tokenserver

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

const (
	appid  = "wx1"
	secret = "0123456789abcdef0123456789abcdef"
)

// newServer returns a server that has a token.
func newServer(t *testing.T) (*server, *wechattest.Server) {
	t.Helper()
	wx := wechattest.Start(t, wechattest.Config{
		Accounts: []wechattest.Account{{AppID: appid, Secret: secret}}, Overlap: -1,
	})
	s := &server{
		Config: Config{API: wx.URL, AppID: appid, Secret: secret, Ahead: 10 * time.Minute},
		http:   &http.Client{Timeout: time.Minute},
	}
	if err := s.renew(t.Context(), func() bool { return true }); err != nil {
		t.Fatal(err)
	}
	return s, wx
}

func (s *server) reported(t *testing.T, token string) Reply {
	t.Helper()
	body, err := json.Marshal(Report{token})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.report(w, httptest.NewRequest(http.MethodPost, "/report", bytes.NewReader(body)))
	var r Reply
	if err := json.Unmarshal(w.Body.Bytes(), &r); w.Code != http.StatusOK || err != nil {
		t.Fatalf("status %d, %v", w.Code, err)
	}
	return r
}

func TestReportsOfADeadTokenReplaceItOnce(t *testing.T) {
	t.Parallel()
	s, wx := newServer(t)
	dead, _ := s.current()
	if _, err := wx.ForeignRefresh(appid, "token"); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if r := s.reported(t, dead); wx.Validity(appid, wechattest.KindAccessToken, r.Token) != wechattest.Valid {
				t.Error("a report was answered with a token that is not valid")
			}
		})
	}
	all.Wait()
	if n := wx.Calls(appid, "token"); n != 2 {
		t.Errorf("WeChat was asked %d times for a token, want 2: at the start, and for all reports", n)
	}
}

func TestReportOfATokenThatLivesCostsNone(t *testing.T) {
	t.Parallel()
	s, wx := newServer(t)
	token, _ := s.current()
	if r := s.reported(t, token); r.Token != token {
		t.Error("a token that lives was replaced")
	}
	if n := wx.Calls(appid, "token"); n != 1 {
		t.Errorf("WeChat was asked %d times for a token, want 1", n)
	}
}

func TestOldTokenIsServedWhileWeChatFails(t *testing.T) {
	t.Parallel()
	s, wx := newServer(t)
	token, _ := s.current()
	wx.Inject(wechattest.Fault{Endpoint: "token", Errcode: -1})
	if err := s.renew(t.Context(), func() bool { return true }); err == nil {
		t.Fatal("a refusal was no error")
	}
	w := httptest.NewRecorder()
	s.answer(w)
	var r Reply
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil || r.Token != token || r.Milliseconds <= 0 {
		t.Errorf("status %d, %v", w.Code, err)
	}
}
