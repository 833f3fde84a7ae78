package wechat

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// The table of wechat-api.md 1.8, written down a second time, so that a change of the first is a decision.
var errcodeTests = []struct {
	codes      []int
	token, api Class
	wait       time.Duration
	advice     string // part of the advice at the token endpoints; empty: none
}{
	{codes: []int{-1}, token: ClassBusy, api: ClassBusy},
	{codes: []int{40001}, token: ClassAccount, api: ClassDeadToken, advice: "AppSecret"},
	{codes: []int{40002}, token: ClassBug, api: ClassBug, advice: "relay"},
	{codes: []int{40003, 40097}, token: ClassBug, api: ClassRequest, advice: "relay"},
	{codes: []int{40013}, token: ClassAccount, api: ClassAccount, advice: "AppID"},
	{codes: []int{40014, 42001}, token: ClassBug, api: ClassDeadToken, advice: "relay"},
	{codes: []int{40125}, token: ClassAccount, api: ClassAccount, advice: "AppSecret"},
	{codes: []int{40164, 61004, 45035}, token: ClassAccount, api: ClassAccount, wait: 5 * time.Minute, advice: "put 8.149.1.2 on the API IP white list"},
	{codes: []int{40243}, token: ClassAccount, api: ClassAccount, wait: 10 * time.Minute, advice: "unfreeze"},
	{codes: []int{41001, 41002, 41004, 43001, 43002, 44002, 47001}, token: ClassBug, api: ClassBug, advice: "relay"},
	{codes: []int{43003}, token: ClassBug, api: ClassBug, advice: "https://"},
	{codes: []int{42007}, token: ClassAccount, api: ClassAccount, advice: "authorise it again"},
	{codes: []int{45009}, token: ClassDailyQuota, api: ClassDailyQuota, advice: "00:00 Asia/Shanghai"},
	{codes: []int{45011}, token: ClassMinuteQuota, api: ClassMinuteQuota, wait: time.Minute},
	{codes: []int{48001, 61007}, token: ClassPermission, api: ClassPermission, advice: "permission"},
	{codes: []int{48004, 50002, 50004, 50007}, token: ClassAccount, api: ClassAccount, advice: "mp.weixin.qq.com"},
	{codes: []int{48006}, token: ClassAccount, api: ClassAccount, advice: "10 times this month"},
	{codes: []int{48017}, token: ClassBusy, api: ClassBusy, advice: "/etc/hosts"},
	{codes: []int{61024}, token: ClassAccount, api: ClassAccount, advice: "third-party platform"},
	{codes: []int{89501}, token: ClassAccount, api: ClassAccount, wait: 5 * time.Minute, advice: "calls from 8.149.1.2 wait"},
	{codes: []int{89503}, token: ClassAccount, api: ClassAccount, wait: 10 * time.Minute, advice: "8.149.1.2 need the consent"},
	{codes: []int{89506}, token: ClassAccount, api: ClassAccount, wait: 24 * time.Hour, advice: "24 hours"},
	{codes: []int{89507}, token: ClassAccount, api: ClassAccount, wait: time.Hour, advice: "1 hour"},
}

func TestEveryErrcodeHasItsClassAtEveryEndpoint(t *testing.T) {
	t.Parallel()
	var tested []int
	for _, tt := range errcodeTests {
		for _, code := range tt.codes {
			tested = append(tested, code)
			for endpoint, call := range endpoints {
				t.Run(fmt.Sprint(code, " ", endpoint), func(t *testing.T) {
					t.Parallel()
					want := tt.api
					if endpoint == EndpointToken || endpoint == EndpointStableToken {
						want = tt.token
					}
					// A number or a numeric string; HTTP 200 or not.
					for _, status := range []int{200, 400, 503} {
						for _, form := range []string{"%d", `"%d"`} {
							body := fmt.Sprintf(`{"errmsg":"invalid ip 8.149.1.2 ipv6 ::ffff:8.149.1.2, not in whitelist rid: 663ddb36-1f2a3b4c-5d6e7f80","errcode":`+form+`}`, code)
							_, err := call(serveBody(t, status, body), t.Context())
							e := failure(t, err)
							if e.Errcode != code || e.Class != want || e.Wait != tt.wait || e.HTTPStatus != status || !e.Sent || e.Endpoint != endpoint {
								t.Errorf("HTTP %d: got %+v, want class %s, wait %s", status, *e, want, tt.wait)
							}
							if endpoint == EndpointToken && !strings.Contains(e.Advice, tt.advice) || tt.advice == "" && e.Advice != "" {
								t.Errorf("advice is %q, want %q", e.Advice, tt.advice)
							}
							if e.RID != "663ddb36-1f2a3b4c-5d6e7f80" || e.Errmsg != "invalid ip 8.149.1.2 ipv6 ::ffff:8.149.1.2, not in whitelist" {
								t.Errorf("got %q, rid %q", e.Errmsg, e.RID)
							}
						}
					}
				})
			}
		}
	}
	for code := range errcodes {
		if !slices.Contains(tested, code) {
			t.Errorf("errcode %d is in the table and not in this test", code)
		}
	}
	if len(tested) != len(errcodes) {
		t.Errorf("%d errcodes tested, %d in the table", len(tested), len(errcodes))
	}
}

// What an operator must act on comes with words; what nobody can act on comes without.
func TestAdviceIsThereWhereAnOperatorMustAct(t *testing.T) {
	t.Parallel()
	for code, row := range errcodes {
		for _, v := range row {
			switch v.class {
			case ClassAccount, ClassPermission, ClassBug, ClassDailyQuota:
				if v.advice == "" {
					t.Errorf("%d: no advice", code)
				}
			case ClassDeadToken, ClassRequest, ClassMinuteQuota:
				if v.advice != "" {
					t.Errorf("%d: advice %q", code, v.advice)
				}
			case ClassBusy:
			default:
				t.Errorf("%d: class %s must not stand in the table", code, v.class)
			}
		}
	}
}

func TestUnknownErrcode(t *testing.T) {
	t.Parallel()
	for endpoint, call := range endpoints {
		_, err := call(serveBody(t, 200, `{"errcode":99999,"errmsg":"news"}`), t.Context())
		if e := failure(t, err); e.Class != ClassUnknown || e.Errcode != 99999 || e.Advice == "" {
			t.Errorf("%s: got %+v", endpoint, *e)
		}
		// A proxy may number its own errors: with another status than 200 only what the table knows is WeChat's.
		_, err = call(serveBody(t, 502, `{"errcode":99999,"errmsg":"news"}`), t.Context())
		if e := failure(t, err); e.Class != ClassServer || e.Errcode != 0 || e.HTTPStatus != 502 || e.Excerpt == "" {
			t.Errorf("%s: got %+v", endpoint, *e)
		}
	}
}

func TestAnErrcodeWinsOverACredential(t *testing.T) {
	t.Parallel()
	_, err := serveBody(t, 200, `{"errcode":-1,"errmsg":"system error","access_token":"A","expires_in":7200}`).Token(t.Context(), testAppID, testSecret)
	if e := failure(t, err); e.Class != ClassBusy {
		t.Errorf("got %+v", *e)
	}
}
