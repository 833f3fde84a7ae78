package wechat

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// errcodeTests repeats the table of errcodes, so that a change of the table is never an accident.
var errcodeTests = []struct {
	codes         []int
	secret, token Class // at the endpoints that take the AppSecret, and at those that take an access_token
	wait          time.Duration
	advice        string // part of the advice at the endpoint token; empty: no advice
}{
	{codes: []int{-1}, secret: ClassBusy, token: ClassBusy},
	{codes: []int{40001}, secret: ClassAccount, token: ClassDeadToken, advice: "AppSecret"},
	{codes: []int{40002}, secret: ClassBug, token: ClassBug, advice: "relay"},
	{codes: []int{40003, 40097}, secret: ClassBug, token: ClassRequest, advice: "relay"},
	{codes: []int{40013}, secret: ClassAccount, token: ClassAccount, advice: "AppID"},
	{codes: []int{40014, 42001}, secret: ClassBug, token: ClassDeadToken, advice: "relay"},
	{codes: []int{40125}, secret: ClassAccount, token: ClassAccount, advice: "AppSecret"},
	{codes: []int{40164, 61004, 45035}, secret: ClassAccount, token: ClassAccount, wait: 5 * time.Minute,
		advice: "put 8.149.1.2 on the API IP white list"},
	{codes: []int{40243}, secret: ClassAccount, token: ClassAccount, wait: 10 * time.Minute, advice: "unfreeze"},
	{codes: []int{41001, 41002, 41004, 43001, 43002, 44002, 47001}, secret: ClassBug, token: ClassBug, advice: "relay"},
	{codes: []int{43003}, secret: ClassBug, token: ClassBug, advice: "https://"},
	{codes: []int{42007}, secret: ClassAccount, token: ClassAccount, advice: "authorise this account again"},
	{codes: []int{45009}, secret: ClassDailyQuota, token: ClassDailyQuota, advice: "00:00 Asia/Shanghai"},
	{codes: []int{45011}, secret: ClassMinuteQuota, token: ClassMinuteQuota, wait: time.Minute},
	{codes: []int{48001, 61007}, secret: ClassPermission, token: ClassPermission, advice: "permission"},
	{codes: []int{48004, 50002, 50004, 50007}, secret: ClassAccount, token: ClassAccount, advice: "mp.weixin.qq.com"},
	{codes: []int{48006}, secret: ClassAccount, token: ClassAccount, advice: "10 times this month"},
	{codes: []int{48017}, secret: ClassBusy, token: ClassBusy, advice: "/etc/hosts"},
	{codes: []int{61024}, secret: ClassAccount, token: ClassAccount, advice: "third-party platform"},
	{codes: []int{89501}, secret: ClassAccount, token: ClassAccount, wait: 5 * time.Minute,
		advice: "calls from 8.149.1.2 wait for the administrator"},
	{codes: []int{89503}, secret: ClassAccount, token: ClassAccount, wait: 10 * time.Minute,
		advice: "calls from 8.149.1.2 need the consent"},
	{codes: []int{89506}, secret: ClassAccount, token: ClassAccount, wait: 24 * time.Hour, advice: "24 hours"},
	{codes: []int{89507}, secret: ClassAccount, token: ClassAccount, wait: time.Hour, advice: "1 hour"},
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
					want := Error{
						Endpoint: endpoint, Class: tt.token, Errcode: code, Wait: tt.wait, Sent: true,
						Errmsg: "invalid ip 8.149.1.2 ipv6 ::ffff:8.149.1.2, not in whitelist",
						RID:    "663ddb36-1f2a3b4c-5d6e7f80",
					}
					if endpoint.takesSecret() {
						want.Class = tt.secret
					}
					for _, status := range []int{200, 400, 503} {
						want.HTTPStatus = status
						for _, form := range []string{"%d", `"%d"`} { // a number, or a numeric string
							body := fmt.Sprintf(`{"errmsg":"`+want.Errmsg+` rid: `+want.RID+`","errcode":`+form+`}`,
								code)
							_, err := call(serveBody(t, status, body), t.Context())
							got := *failure(t, err)
							if endpoint == EndpointToken {
								contains(t, "advice", got.Advice, tt.advice)
							}
							if tt.advice == "" {
								equal(t, "advice", got.Advice, "")
							}
							got.Advice, got.Host = "", ""
							equal(t, "error", got, want)
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

// If an operator must act, there is an advice. If nobody can act, there is none.
func TestAdviceIsThereIfAnOperatorMustAct(t *testing.T) {
	t.Parallel()
	for code, row := range errcodes {
		for _, m := range row {
			switch m.class {
			case ClassAccount, ClassPermission, ClassBug, ClassDailyQuota:
				if m.advice == "" {
					t.Errorf("%d: no advice", code)
				}
			case ClassDeadToken, ClassRequest, ClassMinuteQuota:
				equal(t, fmt.Sprint("advice of ", code), m.advice, "")
			case ClassBusy:
			default:
				t.Errorf("%d: class %s must not be in the table", code, m.class)
			}
		}
	}
}

// docs/wechat-api.md#errcodes names the classes and the source of each errcode. It must say what the code does.
func TestTheDocumentedTableOfErrcodesIsTheCodes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/wechat-api.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[int][2]string{}
	row := regexp.MustCompile(`(?m)^\| (-?\d[\d, ]*) \| [^|]+ \| (\w+) \| (\w+) \| [^|]+ \|$`)
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		for _, digits := range strings.Split(m[1], ", ") {
			code, err := strconv.Atoi(digits)
			if err != nil {
				t.Fatal(err)
			}
			documented[code] = [2]string{m[2], m[3]}
		}
	}
	inCode := map[int][2]string{}
	for code, m := range errcodes {
		inCode[code] = [2]string{m[atSecret].class.String(), m[atToken].class.String()}
	}
	equal(t, "classes of docs/wechat-api.md", documented, inCode)
}

func TestUnknownErrcode(t *testing.T) {
	t.Parallel()
	for endpoint, call := range endpoints {
		_, err := call(serveBody(t, 200, `{"errcode":99999,"errmsg":"news"}`), t.Context())
		e := failure(t, err)
		equal(t, "class", e.Class, ClassUnknown)
		equal(t, "errcode", e.Errcode, 99999)
		equal(t, "advice", e.Advice, adviceUnknown)

		// A proxy may number its own errors. So without HTTP 200 only an errcode of the table is WeChat's.
		const body = `{"errcode":99999,"errmsg":"news"}`
		_, err = call(serveBody(t, 502, body), t.Context())
		got := *failure(t, err)
		got.Host = ""
		equal(t, "error", got, Error{Endpoint: endpoint, Class: ClassServer, HTTPStatus: 502, Sent: true,
			Advice: adviceOf(&got), Excerpt: "{errcode: number(5), errmsg: string(4)}"})
	}
}

func TestAnErrcodeWinsOverACredential(t *testing.T) {
	t.Parallel()
	body := `{"errcode":-1,"errmsg":"system error","access_token":"A","expires_in":7200}`
	_, err := serveBody(t, 200, body).Token(t.Context(), testAppID, testSecret)
	equal(t, "class", failure(t, err).Class, ClassBusy)
}
