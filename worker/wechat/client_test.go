package wechat

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestRequestsAreAsDocumented(t *testing.T) {
	t.Parallel()
	odd := `a/b+c=&"é` // WeChat issues no such value, but the client must not depend on that
	tests := map[string]struct {
		call                 func(*Client) error
		method, uri, body    string
		wantType, answerWith string
	}{
		"token": {
			call: func(c *Client) error { _, err := c.Token(t.Context(), "APPID", "APPSECRET"); return err },
			// The request of the page, in its order (docs/wechat-api.md#token).
			method: "GET", uri: "/cgi-bin/token?grant_type=client_credential&appid=APPID&secret=APPSECRET",
			answerWith: sample(t, "getaccesstoken_ok.json"),
		},
		"token with odd characters": {
			call:   func(c *Client) error { _, err := c.Token(t.Context(), "APPID", odd); return err },
			method: "GET", uri: "/cgi-bin/token?grant_type=client_credential&appid=APPID&secret=a%2Fb%2Bc%3D%26%22%C3%A9",
			answerWith: sample(t, "getaccesstoken_ok.json"),
		},
		"stable_token normal": {
			call: func(c *Client) error {
				_, err := c.StableToken(t.Context(), "APPID", "APPSECRET", false)
				return err
			},
			method: "POST", uri: "/cgi-bin/stable_token", wantType: "application/json",
			body:       `{"grant_type":"client_credential","appid":"APPID","secret":"APPSECRET"}`,
			answerWith: sample(t, "getaccesstoken_ok.json"),
		},
		"stable_token forced": {
			call: func(c *Client) error {
				_, err := c.StableToken(t.Context(), "APPID", "<A&B>", true)
				return err
			},
			method: "POST", uri: "/cgi-bin/stable_token", wantType: "application/json",
			body:       `{"grant_type":"client_credential","appid":"APPID","secret":"<A&B>","force_refresh":true}`,
			answerWith: sample(t, "getaccesstoken_ok.json"),
		},
		"jsapi ticket": {
			call: func(c *Client) error {
				_, err := c.Ticket(t.Context(), "ACCESS_TOKEN", TicketJSAPI)
				return err
			},
			method: "GET", uri: "/cgi-bin/ticket/getticket?access_token=ACCESS_TOKEN&type=jsapi",
			answerWith: sample(t, "getticket_ok.json"),
		},
		"wx_card ticket": {
			call: func(c *Client) error {
				_, err := c.Ticket(t.Context(), "ACCESS_TOKEN", TicketWXCard)
				return err
			},
			// The request of the page (docs/wechat-api.md#getticket).
			method: "GET", uri: "/cgi-bin/ticket/getticket?access_token=ACCESS_TOKEN&type=wx_card",
			answerWith: sample(t, "getticket_ok.json"),
		},
		"tickettocode": {
			call: func(c *Client) error {
				_, err := c.TicketToCode(t.Context(), "ACCESS_TOKEN", "OPENID", "CODE_TICKET")
				return err
			},
			method: "POST", uri: "/intp/marketcode/tickettocode?access_token=ACCESS_TOKEN",
			wantType:   "application/json",
			body:       `{"openid":"OPENID","code_ticket":"CODE_TICKET"}`,
			answerWith: sample(t, "tickettocode_repaired.json"),
		},
		"get_api_domain_ip": {
			call:   func(c *Client) error { _, err := c.APIDomainIP(t.Context(), "ACCESS_TOKEN"); return err },
			method: "GET", uri: "/cgi-bin/get_api_domain_ip?access_token=ACCESS_TOKEN",
			answerWith: `{"ip_list":["101.89.47.18"]}`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got atomic.Pointer[http.Request]
			var body atomic.Value
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				body.Store(string(b))
				got.Store(r)
				_, _ = io.WriteString(w, tt.answerWith)
			})
			if err := tt.call(c); err != nil {
				t.Fatal(err)
			}
			r := got.Load()
			equal(t, "method", r.Method, tt.method)
			equal(t, "URI", r.RequestURI, tt.uri)
			equal(t, "body", body.Load().(string), tt.body)
			equal(t, "Content-Type", r.Header.Get("Content-Type"), tt.wantType)
			equal(t, "Accept-Encoding", r.Header.Values("Accept-Encoding"), []string{"identity"})
			// A GET has no body: relays refuse one that has (see http2_test.go too).
			equal(t, "length of the body", r.ContentLength, int64(len(tt.body)))
			equal(t, "Transfer-Encoding", len(r.TransferEncoding), 0)
			if r.Method == http.MethodGet {
				equal(t, "Content-Length of a GET", r.Header.Get("Content-Length"), "")
			}
		})
	}
}

// The page shows the two fields in the other order (docs/wechat-api.md#tickettocode).
func TestTicketToCodeBodyIsTheSample(t *testing.T) {
	t.Parallel()
	bodies := make(chan string, 1)
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		bodies <- string(b)
		_, _ = io.WriteString(w, sample(t, "tickettocode_repaired.json"))
	})
	if _, err := c.TicketToCode(t.Context(), testToken, testOpenID, testTicket); err != nil {
		t.Fatal(err)
	}
	object := func(text string) (fields map[string]any) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), &fields); err != nil {
			t.Fatal(err)
		}
		return fields
	}
	equal(t, "body", object(<-bodies), object(sample(t, "tickettocode_request.json")))
}

func TestSamplesOfTheDocumentsAreUnderstood(t *testing.T) {
	t.Parallel()
	t.Run("getaccesstoken", func(t *testing.T) {
		t.Parallel()
		before := time.Now()
		got, err := serveBody(t, 200, sample(t, "getaccesstoken_ok.json")).Token(t.Context(), testAppID, testSecret)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "value", got.Value, "ACCESS_TOKEN")
		equal(t, "life", got.ExpiresIn, 2*time.Hour)
		if got.SentAt.Before(before) || got.SentAt.After(time.Now()) {
			t.Errorf("SentAt is %s", got.SentAt)
		}
	})
	t.Run("getaccesstoken error", func(t *testing.T) {
		t.Parallel()
		_, err := serveBody(t, 200, sample(t, "getaccesstoken_error.json")).Token(t.Context(), testAppID, testSecret)
		e := failure(t, err)
		equal(t, "errcode", e.Errcode, 40013)
		equal(t, "errmsg", e.Errmsg, "invalid appid")
		equal(t, "class", e.Class, ClassAccount)
		equal(t, "advice", e.Advice, adviceAppID)
		equal(t, "Sent", e.Sent, true)
		equal(t, "error", err.Error(), `token: WeChat refused: errcode 40013 "invalid appid"`)
	})
	t.Run("getticket", func(t *testing.T) {
		t.Parallel()
		got, err := serveBody(t, 200, sample(t, "getticket_ok.json")).Ticket(t.Context(), testToken, TicketWXCard)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "value", got.Value, "bxLdikRXVbTPdHSM05e5u5sUoXNKdvsdshFKA")
		equal(t, "life", got.ExpiresIn, 2*time.Hour)
	})
	t.Run("tickettocode repaired", func(t *testing.T) {
		t.Parallel()
		body := sample(t, "tickettocode_repaired.json")
		got, err := serveBody(t, 200, body).TicketToCode(t.Context(), testToken, testOpenID, testTicket)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "answer", string(got), body)
		var fields map[string]any
		if err := json.Unmarshal(got, &fields); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"errcode": 0., "errmsg": "ok", "code": "8", "code_start": 0., "code_end": 200.,
			"activity_name": "test_name", "product_brand": "test_brand", "product_title": "test_title",
			"product_code": "test_code", "wxa_appid": "wx3sxjifjwojfsffef", "wxa_path": "pages/index/index",
			"application_id": 581865877., "isv_application_id": "test_id"}
		equal(t, "fields", fields, want)
	})
	// The sample lacks a comma. The client does not guess where it belongs.
	t.Run("tickettocode malformed", func(t *testing.T) {
		t.Parallel()
		body := sample(t, "tickettocode_malformed.json")
		_, err := serveBody(t, 200, body).TicketToCode(t.Context(), testToken, testOpenID, testTicket)
		e := failure(t, err)
		equal(t, "class", e.Class, ClassBroken)
		equal(t, "HTTP status", e.HTTPStatus, 200)
		equal(t, "errcode", e.Errcode, 0)
		contains(t, "excerpt", e.Excerpt, `{errcode: number(1), errmsg: string(2), code: string(1),`)
		contains(t, "error", err.Error(), fmt.Sprintf(
			`not JSON at offset %d of %d bytes: invalid character '"' after object key:value pair`,
			strings.Index(body, `"application_id"`), len(body)))
	})
}

// Answers that developers have reported (docs/wechat-api.md), beyond the samples of WeChat's pages.
func TestReportedAnswersAreUnderstood(t *testing.T) {
	t.Parallel()
	t.Run("stable_token returns the remaining life", func(t *testing.T) {
		t.Parallel()
		c := serveBody(t, 200, `{"access_token":"ACCESS_TOKEN","expires_in":345}`)
		got, err := c.StableToken(t.Context(), testAppID, testSecret, false)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "life", got.ExpiresIn, 345*time.Second)
	})
	t.Run("40097 is an error of the request", func(t *testing.T) {
		t.Parallel()
		const errmsg = "invalid args, 无效的code_ticket或与openid不对应... hint: [x][2024-05-10 16:31:02]"
		c := serveBody(t, 200, `{"errcode":40097,"errmsg":"`+errmsg+` rid: 663ddb36-1f2a3b4c-5d6e7f80"}`)
		_, err := c.TicketToCode(t.Context(), testToken, testOpenID, testTicket)
		e := failure(t, err)
		equal(t, "class", e.Class, ClassRequest)
		equal(t, "rid", e.RID, "663ddb36-1f2a3b4c-5d6e7f80")
		equal(t, "errmsg", e.Errmsg, errmsg)
	})
	t.Run("code keeps leading zeros, numbers their digits", func(t *testing.T) {
		t.Parallel()
		body := `{"code":"000000008","application_id":18446744073709551615,"new_field":[1.50]}`
		c := serveBody(t, 200, "\xEF\xBB\xBF \r\n"+body+"\n")
		got, err := c.TicketToCode(t.Context(), testToken, testOpenID, testTicket)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "answer", string(got), body)
	})
	t.Run("dead token", func(t *testing.T) {
		t.Parallel()
		const errmsg = "invalid credential, access_token is invalid or not latest"
		c := serveBody(t, 200, `{"errcode":40001,"errmsg":"`+errmsg+` rid: 663ddb36-1f2a3b4c-5d6e7f80"}`)
		_, err := c.Ticket(t.Context(), testToken, TicketJSAPI)
		equal(t, "class", failure(t, err).Class, ClassDeadToken)
		equal(t, "error", err.Error(),
			`getticket: WeChat refused: errcode 40001 "`+errmsg+`" (rid 663ddb36-1f2a3b4c-5d6e7f80)`)
	})
	t.Run("ip list", func(t *testing.T) {
		t.Parallel()
		c := serveBody(t, 200, `{"ip_list":["101.89.47.18","2408::1","101.226.103.0/25"]}`)
		got, err := c.APIDomainIP(t.Context(), testToken)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "IPs", got, []string{"101.89.47.18", "2408::1", "101.226.103.0/25"})
	})
}

func TestBaseURLMayHaveAPath(t *testing.T) {
	t.Parallel()
	uris := make(chan string, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		uris <- r.RequestURI
		_, _ = io.WriteString(w, sample(t, "getticket_ok.json"))
	}))
	t.Cleanup(srv.Close)
	c := newClient(t, Config{URLs: []string{srv.URL + "/relay%2Fa/"}})
	if _, err := c.Ticket(t.Context(), "T", TicketJSAPI); err != nil {
		t.Fatal(err)
	}
	equal(t, "URI", <-uris, "/relay%2Fa/cgi-bin/ticket/getticket?access_token=T&type=jsapi")
}

func TestOnCallRunsAfterEveryAttempt(t *testing.T) {
	t.Parallel()
	var attempts calls
	answers := make(chan string, 2)
	date := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", date.Format(http.TimeFormat))
		_, _ = io.WriteString(w, <-answers)
	}))
	t.Cleanup(srv.Close)
	c := newClient(t, Config{URLs: []string{srv.URL}, OnCall: attempts.add})

	answers <- sample(t, "getticket_ok.json")
	_, _ = c.Ticket(t.Context(), testToken, TicketJSAPI)
	answers <- `{"errcode":-1,"errmsg":"system error"}`
	_, _ = c.Token(t.Context(), testAppID, testSecret)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Token(ctx, testAppID, testSecret)
	equal(t, "Sent", failure(t, err).Sent, false)
	isError(t, err, context.Canceled)
	equal(t, "error", err.Error(), "token: not sent: context canceled")

	if n := len(attempts.all); n != 2 {
		t.Fatalf("%d attempts, want 2 (none for a call whose context had ended)", n)
	}
	first, second := attempts.all[0], attempts.all[1]
	for _, a := range attempts.all {
		equal(t, "host", a.Host, strings.TrimPrefix(srv.URL, "http://"))
		equal(t, "date", a.Date, date)
		equal(t, "duration is positive", a.Duration > 0, true)
	}
	equal(t, "endpoint", first.Endpoint, EndpointTicket)
	equal(t, "error", first.Err, nil)
	equal(t, "endpoint", second.Endpoint, EndpointToken)
	if second.Err == nil {
		t.Fatal("the second attempt has no error")
	}
	equal(t, "class", second.Err.Class, ClassBusy)
}
