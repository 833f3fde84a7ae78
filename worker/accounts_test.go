package worker

import (
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

func TestAccountsComeAndGoWhileTheWorkerRuns(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{Accounts: []wechattest.Account{
		{AppID: appid, Secret: secret}, {AppID: "wx2", Secret: secret},
	}})
	w := f.worker(nil)
	first := w.await(messages.AccessToken, 0)
	get := func(id string) error {
		_, err := w.client.GetCredential(f.context(), messages.GetCredentialRequest{AppID: id})
		return err
	}
	checkSymbol(t, "an account that is not configured yet", get("wx2"), messages.UnknownAccount)
	one := Account{AppID: appid, Secret: secret}
	two := Account{AppID: "wx2", Secret: secret, Tickets: []messages.Kind{messages.JSAPITicket}}
	if err := w.SetAccounts([]Account{one, two}); err != nil {
		t.Fatal(err)
	}
	for _, k := range []messages.Kind{messages.AccessToken, messages.JSAPITicket} {
		w.awaitOf("wx2", k, 0)
	}
	// An invalid list changes nothing.
	for name, list := range map[string][]Account{"empty": nil, "twice": {one, one}, "no secret": {{AppID: "wx3"}}} {
		if err := w.SetAccounts(list); err == nil {
			t.Errorf("an invalid list (%s) was accepted", name)
		}
	}
	if err := get("wx2"); err != nil {
		t.Errorf("after invalid lists: %v", err)
	}
	if n := f.wechat.Calls(appid, ""); n != 1 {
		t.Errorf("%d calls for the account that was there from the start, want 1", n)
	}

	if err := w.SetAccounts([]Account{two}); err != nil {
		t.Fatal(err)
	}
	checkSymbol(t, "an account that was removed", get(appid), messages.UnknownAccount)
	if st := w.status.of(""); st.Accounts != 1 || len(st.Credentials) != 2 {
		t.Errorf("the status has %d accounts and %d credentials, want 1 and 2", st.Accounts, len(st.Credentials))
	}
	// The removed account is no longer renewed, and its record stays until its TTL ends.
	for _, c := range w.scheduler.snapshot("") {
		if c.account.AppID == appid {
			t.Errorf("the %s of the removed account is still scheduled", c.kind)
		}
	}
	w.scheduler.mu.Lock()
	for _, l := range w.scheduler.lanes {
		for _, it := range l.queue {
			if it.account.AppID == appid {
				t.Errorf("the %s of the removed account is still in a queue", it.kind)
			}
		}
	}
	w.scheduler.mu.Unlock()
	if c, err := f.storeOf("other").Get(f.context(), appid, messages.AccessToken); err != nil || c.Value != first.Value {
		t.Errorf("the record of the removed account is %v, %v", c, err)
	}
	if n := f.wechat.Calls(appid, ""); n != 1 {
		t.Errorf("%d calls for the removed account, want 1", n)
	}
	if _, err := w.memory.get("wx2", messages.AccessToken); err != nil {
		t.Errorf("the other account: %v", err)
	}
}

func TestRefusedSecretCallsBackAndTheRightOneIsTriedAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	refused := make(chan string, 1)
	w := f.worker(func(c *Config) {
		c.Accounts[0].Secret = "CANARY-WRONG"
		c.OnAccountRefused = func(appid string) { refused <- appid }
	})
	select {
	case id := <-refused:
		if id != appid {
			t.Errorf("OnAccountRefused was called with %s, want %s", id, appid)
		}
	case <-time.After(patience):
		t.Fatal("OnAccountRefused was not called")
	}
	if err := w.SetAccounts([]Account{{AppID: appid, Secret: secret}}); err != nil {
		t.Fatal(err)
	}
	w.await(messages.AccessToken, 0)
	f.checkCalls("", 2)
}
