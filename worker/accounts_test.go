package worker

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

func TestAccountsComeAndGoWhileTheWorkerRuns(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{Accounts: []wechattest.Account{{AppID: appid, Secret: secret}, {AppID: "wx2", Secret: "x"}}})
	w := s.worker(nil)
	first := w.await(messages.AccessToken, 0)
	ask := func(id string) error {
		_, err := w.client.GetCredential(s.context(), messages.GetCredentialRequest{AppID: id})
		return err
	}
	if err := ask("wx2"); symbol(err) != messages.UnknownAccount {
		t.Errorf("before it is there: %v", err)
	}
	one, two := Account{AppID: appid, Secret: secret}, Account{AppID: "wx2", Secret: "x", Tickets: []messages.Kind{messages.JSAPITicket}}
	if err := w.SetAccounts([]Account{one, two}); err != nil {
		t.Fatal(err)
	}
	for _, k := range []messages.Kind{messages.AccessToken, messages.JSAPITicket} {
		if _, err := w.reader.Wait(s.context(), "wx2", k); err != nil {
			t.Error(err)
		}
	}
	// What makes no sense changes nothing.
	for name, list := range map[string][]Account{"empty": nil, "twice": {one, one}, "no secret": {{AppID: "wx3"}}} {
		if err := w.SetAccounts(list); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := ask("wx2"); err != nil {
		t.Errorf("after refused lists: %v", err)
	}
	if n := s.wechat.Calls(appid, ""); n != 1 {
		t.Errorf("%d calls for the account that was there all the time, want its first", n)
	}
	if err := w.SetAccounts([]Account{two}); err != nil {
		t.Fatal(err)
	}
	if err := ask(appid); symbol(err) != messages.UnknownAccount {
		t.Errorf("after it has gone: %v", err)
	}
	if st := w.Worker.status(""); st.Accounts != 1 || len(st.Credentials) != 2 {
		t.Errorf("%+v", st)
	}
	// It is renewed no more, and its record is left to its TTL.
	w.scheduler.each(func(it *item) {
		if it.account.AppID == appid {
			t.Errorf("%s is still scheduled", it.kind)
		}
	})
	w.scheduler.mu.Lock()
	for _, l := range w.scheduler.lanes {
		for _, it := range l.queue {
			if it.account.AppID == appid {
				t.Errorf("%s is still in a queue", it.kind)
			}
		}
	}
	w.scheduler.mu.Unlock()
	if c, err := w.store.Get(s.context(), appid, messages.AccessToken); err != nil || c.Value != first.Value {
		t.Errorf("its record: %v, %v", c, err)
	}
	if n := s.wechat.Calls(appid, ""); n != 1 {
		t.Errorf("%d calls for it, want 1", n)
	}
	if _, err := w.reader.Get("wx2", messages.AccessToken); err != nil {
		t.Errorf("the other one: %v", err)
	}
}

func TestRefusedSecretIsToldAndTheRightOneTriedAtOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	refused := make(chan string, 1)
	w := s.worker(func(c *Config) {
		c.Accounts[0].Secret = "CANARY-WRONG"
		c.OnAccountRefused = func(appid string) { refused <- appid }
	})
	select {
	case id := <-refused:
		if id != appid {
			t.Errorf("told of %s", id)
		}
	case <-time.After(patience):
		t.Fatal("nobody was told")
	}
	if err := w.SetAccounts([]Account{{AppID: appid, Secret: secret}}); err != nil {
		t.Fatal(err)
	}
	w.await(messages.AccessToken, 0)
	if n := s.wechat.Calls("", ""); n != 2 {
		t.Errorf("%d calls, want 2", n)
	}
}

// Every verb of fmt, and slog with both handlers: of an account, of a pointer, and of lists and maps of them.
func TestAccountNeverShowsItsSecretWhenItIsPrinted(t *testing.T) {
	t.Parallel()
	const hidden = "SECRET-VALUE"
	a := Account{AppID: "wx1", Secret: hidden, Name: "shop", Tickets: []messages.Kind{messages.JSAPITicket}}
	values := []any{
		a, &a, []Account{a}, []*Account{&a}, map[string]Account{"wx1": a}, map[string]*Account{"wx1": &a},
		Config{Accounts: []Account{a}}.Accounts, struct{ Accounts []Account }{[]Account{a}},
	}
	for _, v := range values {
		for verb := 'A'; verb <= 'z'; verb++ {
			if verb == 'p' || verb == 'w' { // fmt calls no method for them, and go vet refuses them
				continue
			}
			for _, flags := range []string{"", "+", "#", "-", " ", "0", "20", ".3"} {
				text := fmt.Sprintf("%"+flags+string(verb), v)
				for _, form := range []string{hidden, fmt.Sprintf("%x", hidden), fmt.Sprintf("%X", hidden), fmt.Sprintf("% x", hidden)} {
					if strings.Contains(text, form) {
						t.Errorf("%%%s%c of %T shows the secret: %s", flags, verb, v, text)
					}
				}
			}
		}
		var logged bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&logged, nil), slog.NewJSONHandler(&logged, nil)} {
			slog.New(h).Info("accounts", "value", v, slog.Group("group", "value", v))
		}
		if strings.Contains(logged.String(), hidden) {
			t.Errorf("slog of %T shows the secret: %s", v, logged.String())
		}
		if !strings.Contains(logged.String(), "wx1") {
			t.Errorf("slog of %T does not name the account: %s", v, logged.String())
		}
	}
	if got := a.Secret.Reveal(); got != hidden {
		t.Errorf("Reveal returns %q", got)
	}
}
