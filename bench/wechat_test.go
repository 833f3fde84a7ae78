package main

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// token asks for a token, and returns its expires_in and the time of the header Date.
func token(t *testing.T, url string) (expiresIn int64, date time.Time) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	url += "/cgi-bin/token?grant_type=client_credential&appid=" + appid + "&secret=" + secret
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var a struct {
		ExpiresIn int64 `json:"expires_in"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		t.Fatal(err)
	}
	if date, err = http.ParseTime(resp.Header.Get("Date")); err != nil {
		t.Fatal(err)
	}
	return a.ExpiresIn, date
}

func TestBothClocksOfTheSimulatedWeChat(t *testing.T) {
	t.Parallel()
	const scale = 100_000 // so that the fast clock is hours ahead at once
	w, err := startWeChat(wechattest.Config{
		Accounts: []wechattest.Account{{AppID: appid, Secret: secret}},
	}, scale)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	before := time.Now().Truncate(time.Second)
	if life, _ := token(t, w.fast); life != 7200 {
		t.Errorf("on the fast clock a token lives %d s, want 7200", life)
	}
	life, date := token(t, w.plain)
	if life != 0 { // 7200 s / 100,000, rounded down
		t.Errorf("on the ordinary clock a token lives %d s, want 0", life)
	}
	if date.Before(before) || date.After(time.Now()) {
		t.Errorf("the ordinary clock says %s, it is %s", date, time.Now())
	}
	if n := w.tokenCalls(); n != 2 {
		t.Errorf("%d calls for a token were counted, want 2", n)
	}
	if len(w.openCalls()) != 0 || w.age() <= 0 {
		t.Errorf("%d calls are open, the first was %s ago", len(w.openCalls()), w.age())
	}
}

func TestLifeIsDividedOnlyInAnswersWithAToken(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"access_token":"97_x","expires_in":7200}`:     `{"access_token":"97_x","expires_in":48}`,
		`{"access_token":"97_x","expires_in":7199}`:     `{"access_token":"97_x","expires_in":47}`,
		`{"errcode":-1,"errmsg":"system error rid: x"}`: `{"errcode":-1,"errmsg":"system error rid: x"}`,
		`<html>`: `<html>`,
	} {
		if got := string(divideLife([]byte(body), 150)); got != want {
			t.Errorf("%s became %s, want %s", body, got, want)
		}
	}
}
