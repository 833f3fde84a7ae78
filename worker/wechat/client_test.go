package wechat

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestRequestsAreAsDocumented(t *testing.T) {
	t.Parallel()
	odd := `a/b+c=&"é` // nothing WeChat gives out, but the client must not depend on that
	tests := map[string]struct {
		call                func(*Client) error
		method, uri, body   string
		wantType            string
		wantLen, answerWith string
	}{
		"token": {
			call: func(c *Client) error { _, err := c.Token(t.Context(), "APPID", "APPSECRET"); return err },
			// The line of getaccesstoken.txt, in its order.
			method: "GET", uri: "/cgi-bin/token?grant_type=client_credential&appid=APPID&secret=APPSECRET",
			answerWith: sample(t, "getaccesstoken_ok.json"),
		},
		"token with odd characters": {
			call:   func(c *Client) error { _, err := c.Token(t.Context(), "APPID", odd); return err },
			method: "GET", uri: "/cgi-bin/token?grant_type=client_credential&appid=APPID&secret=a%2Fb%2Bc%3D%26%22%C3%A9",
			answerWith: sample(t, "getaccesstoken_ok.json"),
		},
		"stable_token normal": {
			call:   func(c *Client) error { _, err := c.StableToken(t.Context(), "APPID", "APPSECRET", false); return err },
			method: "POST", uri: "/cgi-bin/stable_token", wantType: "application/json",
			body:       `{"grant_type":"client_credential","appid":"APPID","secret":"APPSECRET"}`,
			answerWith: sample(t, "getaccesstoken_ok.json"),
		},
		"stable_token forced": {
			call:   func(c *Client) error { _, err := c.StableToken(t.Context(), "APPID", "<A&B>", true); return err },
			method: "POST", uri: "/cgi-bin/stable_token", wantType: "application/json",
			body:       `{"grant_type":"client_credential","appid":"APPID","secret":"<A&B>","force_refresh":true}`,
			answerWith: sample(t, "getaccesstoken_ok.json"),
		},
		"jsapi ticket": {
			call:   func(c *Client) error { _, err := c.Ticket(t.Context(), "ACCESS_TOKEN", TicketJSAPI); return err },
			method: "GET", uri: "/cgi-bin/ticket/getticket?access_token=ACCESS_TOKEN&type=jsapi",
			answerWith: sample(t, "getticket_ok.json"),
		},
		"wx_card ticket": {
			call: func(c *Client) error { _, err := c.Ticket(t.Context(), "ACCESS_TOKEN", TicketWXCard); return err },
			// The line of getticket.txt.
			method: "GET", uri: "/cgi-bin/ticket/getticket?access_token=ACCESS_TOKEN&type=wx_card",
			answerWith: sample(t, "getticket_ok.json"),
		},
		"tickettocode": {
			call: func(c *Client) error {
				_, err := c.TicketToCode(t.Context(), "ACCESS_TOKEN", "OPENID", "CODE_TICKET")
				return err
			},
			method: "POST", uri: "/intp/marketcode/tickettocode?access_token=ACCESS_TOKEN", wantType: "application/json",
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
			if r.Method != tt.method || r.RequestURI != tt.uri || body.Load() != tt.body {
				t.Errorf("got %s %s %s\nwant %s %s %s", r.Method, r.RequestURI, body.Load(), tt.method, tt.uri, tt.body)
			}
			if ct := r.Header.Get("Content-Type"); ct != tt.wantType {
				t.Errorf("Content-Type is %q, want %q", ct, tt.wantType)
			}
			// The empty body of a GET must not show on the wire: a server could refuse a GET with a body.
			if r.ContentLength != int64(len(tt.body)) || r.TransferEncoding != nil {
				t.Errorf("Content-Length %d, Transfer-Encoding %v, want %d and none", r.ContentLength, r.TransferEncoding, len(tt.body))
			}
			if r.Header.Get("Accept-Encoding") != "" || r.Header.Get("Content-Length") != "" && r.Method == "GET" {
				t.Errorf("headers: %v", r.Header)
			}
		})
	}
}

// tickettocode.txt shows the two fields in the other order; the same object it is.
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
	var got, want map[string]any
	if err := errors.Join(json.Unmarshal([]byte(<-bodies), &got), json.Unmarshal([]byte(sample(t, "tickettocode_request.json")), &want)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSamplesOfTheDocumentsAreUnderstood(t *testing.T) {
	t.Parallel()
	t.Run("getaccesstoken", func(t *testing.T) {
		t.Parallel()
		before := time.Now()
		got, err := serveBody(t, 200, sample(t, "getaccesstoken_ok.json")).Token(t.Context(), testAppID, testSecret)
		if err != nil || got.Value != "ACCESS_TOKEN" || got.ExpiresIn != 2*time.Hour {
			t.Errorf("got %q %s, %v", got.Value, got.ExpiresIn, err)
		}
		if got.SentAt.Before(before) || got.SentAt.After(time.Now()) {
			t.Errorf("SentAt is %s", got.SentAt)
		}
	})
	t.Run("getaccesstoken error", func(t *testing.T) {
		t.Parallel()
		_, err := serveBody(t, 200, sample(t, "getaccesstoken_error.json")).Token(t.Context(), testAppID, testSecret)
		e := failure(t, err)
		if e.Errcode != 40013 || e.Errmsg != "invalid appid" || e.Class != ClassAccount || e.Advice == "" || !e.Sent {
			t.Errorf("got %+v", *e)
		}
		if want := `token: WeChat refused: errcode 40013 "invalid appid"`; err.Error() != want {
			t.Errorf("got  %s\nwant %s", err, want)
		}
	})
	t.Run("getticket", func(t *testing.T) {
		t.Parallel()
		got, err := serveBody(t, 200, sample(t, "getticket_ok.json")).Ticket(t.Context(), testToken, TicketWXCard)
		if err != nil || got.Value != "bxLdikRXVbTPdHSM05e5u5sUoXNKdvsdshFKA" || got.ExpiresIn != 2*time.Hour {
			t.Errorf("got %q %s, %v", got.Value, got.ExpiresIn, err)
		}
	})
	t.Run("tickettocode repaired", func(t *testing.T) {
		t.Parallel()
		body := sample(t, "tickettocode_repaired.json")
		got, err := serveBody(t, 200, body).TicketToCode(t.Context(), testToken, testOpenID, testTicket)
		if err != nil || string(got) != body {
			t.Fatalf("got %s, %v", got, err)
		}
		var fields map[string]any
		if err := json.Unmarshal(got, &fields); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"errcode": 0., "errmsg": "ok", "code": "8", "code_start": 0., "code_end": 200.,
			"activity_name": "test_name", "product_brand": "test_brand", "product_title": "test_title",
			"product_code": "test_code", "wxa_appid": "wx3sxjifjwojfsffef", "wxa_path": "pages/index/index",
			"application_id": 581865877., "isv_application_id": "test_id"}
		if !reflect.DeepEqual(fields, want) {
			t.Errorf("got %v", fields)
		}
	})
	// The sample lacks a comma. Nothing guesses where it belongs.
	t.Run("tickettocode malformed", func(t *testing.T) {
		t.Parallel()
		body := sample(t, "tickettocode_malformed.json")
		_, err := serveBody(t, 200, body).TicketToCode(t.Context(), testToken, testOpenID, testTicket)
		e := failure(t, err)
		at := strings.Index(body, `"application_id"`)
		if e.Class != ClassBroken || e.HTTPStatus != 200 || e.Errcode != 0 || !strings.HasPrefix(e.Excerpt, `{ "errcode": 0, "errmsg": "ok", "code": "8",`) {
			t.Errorf("got %+v", *e)
		}
		if want := fmt.Sprintf(`not JSON at offset %d of %d bytes: invalid character '"' after object key:value pair`, at, len(body)); !strings.Contains(err.Error(), want) {
			t.Errorf("got  %s\nwant %s", err, want)
		}
	})
}

// What the field reported rather than the documents (wechat-api.md 1.1, 1.4, 1.7).
func TestAnswersFromTheField(t *testing.T) {
	t.Parallel()
	t.Run("stable_token gives the remaining life", func(t *testing.T) {
		t.Parallel()
		got, err := serveBody(t, 200, `{"access_token":"ACCESS_TOKEN","expires_in":345}`).StableToken(t.Context(), testAppID, testSecret, false)
		if err != nil || got.ExpiresIn != 345*time.Second {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("40097 is the caller's", func(t *testing.T) {
		t.Parallel()
		_, err := serveBody(t, 200, `{"errcode":40097,"errmsg":"invalid args, 无效的code_ticket或与openid不对应... hint: [x][2024-05-10 16:31:02] rid: 663ddb36-1f2a3b4c-5d6e7f80"}`).
			TicketToCode(t.Context(), testToken, testOpenID, testTicket)
		e := failure(t, err)
		if e.Class != ClassRequest || e.RID != "663ddb36-1f2a3b4c-5d6e7f80" || strings.Contains(e.Errmsg, "rid") {
			t.Errorf("got %+v", *e)
		}
	})
	t.Run("code keeps leading zeros, numbers their digits", func(t *testing.T) {
		t.Parallel()
		body := `{"code":"000000008","application_id":18446744073709551615,"new_field":[1.50]}`
		got, err := serveBody(t, 200, "\xEF\xBB\xBF \r\n"+body+"\n").TicketToCode(t.Context(), testToken, testOpenID, testTicket)
		if err != nil || string(got) != body {
			t.Errorf("got %s, %v", got, err)
		}
	})
	t.Run("dead token", func(t *testing.T) {
		t.Parallel()
		_, err := serveBody(t, 200, `{"errcode":40001,"errmsg":"invalid credential, access_token is invalid or not latest rid: 663ddb36-1f2a3b4c-5d6e7f80"}`).
			Ticket(t.Context(), testToken, TicketJSAPI)
		want := `getticket: WeChat refused: errcode 40001 "invalid credential, access_token is invalid or not latest" (rid 663ddb36-1f2a3b4c-5d6e7f80)`
		if failure(t, err).Class != ClassDeadToken || err.Error() != want {
			t.Errorf("got  %s\nwant %s", err, want)
		}
	})
	t.Run("ip list", func(t *testing.T) {
		t.Parallel()
		got, err := serveBody(t, 200, `{"ip_list":["101.89.47.18","2408::1","101.226.103.0/25"]}`).APIDomainIP(t.Context(), testToken)
		if want := []string{"101.89.47.18", "2408::1", "101.226.103.0/25"}; err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, %v", got, err)
		}
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
	if got, want := <-uris, "/relay%2Fa/cgi-bin/ticket/getticket?access_token=T&type=jsapi"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestOnCallIsToldOfEveryAttempt(t *testing.T) {
	t.Parallel()
	var told calls
	answers := make(chan string, 2)
	date := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", date.Format(http.TimeFormat))
		_, _ = io.WriteString(w, <-answers)
	}))
	t.Cleanup(srv.Close)
	c := newClient(t, Config{URLs: []string{srv.URL}, OnCall: told.add})

	answers <- sample(t, "getticket_ok.json")
	_, _ = c.Ticket(t.Context(), testToken, TicketJSAPI)
	answers <- `{"errcode":-1,"errmsg":"system error"}`
	_, _ = c.Token(t.Context(), testAppID, testSecret)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Token(ctx, testAppID, testSecret)
	if e := failure(t, err); e.Sent || !errors.Is(err, context.Canceled) || err.Error() != "token: not sent: context canceled" {
		t.Errorf("got %v", err)
	}

	if len(told.all) != 2 {
		t.Fatalf("told of %d attempts, want 2 (none for a call that was over before it began)", len(told.all))
	}
	host := strings.TrimPrefix(srv.URL, "http://")
	if got := told.all[0]; got.Endpoint != EndpointTicket || got.Host != host || got.Err != nil || got.Duration <= 0 || !got.Date.Equal(date) {
		t.Errorf("got %+v", got)
	}
	if got := told.all[1]; got.Endpoint != EndpointToken || got.Err == nil || got.Err.Class != ClassBusy || !got.Date.Equal(date) {
		t.Errorf("got %+v", got)
	}
}

// serveHTTP2 is serve with TLS and HTTP/2.
func serveHTTP2(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	transport := newTransport(DefaultTimeout)
	transport.TLSClientConfig.RootCAs = x509.NewCertPool()
	transport.TLSClientConfig.RootCAs.AddCert(srv.Certificate())
	return newClient(t, Config{URLs: []string{srv.URL}, Transport: transport})
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	protos := make(chan string, len(endpoints))
	c := serveHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		protos <- fmt.Sprint(r.Proto, " ", r.Method == "GET" && len(b) > 0)
		_, _ = io.WriteString(w, `{"access_token":"A","ticket":"A","code":"A","ip_list":[],"expires_in":1}`)
	})
	for name, call := range endpoints {
		if _, err := call(c, t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := <-protos; got != "HTTP/2.0 false" {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

func TestARequestAbortedOverHTTP2CountsAsSent(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	c := serveHTTP2(t, func(http.ResponseWriter, *http.Request) {
		requests.Add(1)
		panic(http.ErrAbortHandler)
	})
	for i := range int32(2) { // over a new connection, and over a kept one
		_, err := c.Token(t.Context(), testAppID, testSecret)
		if e := failure(t, err); !e.Sent || e.Class != ClassTransport || requests.Load() != i+1 {
			t.Errorf("got %v after %d requests", err, requests.Load())
		}
	}
}
