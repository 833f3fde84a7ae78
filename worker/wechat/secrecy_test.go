package wechat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// All secrets of this file contain MARK, and no other text does. Plain secrets look like WeChat's, odd ones do not.
var secretCalls = map[string]func(*Client, context.Context) error{
	"token": func(c *Client, ctx context.Context) error {
		_, err := c.Token(ctx, testAppID, "0123456789MARKabcdef0123456789ab")
		return err
	},
	"token odd": func(c *Client, ctx context.Context) error {
		_, err := c.Token(ctx, testAppID, `x/+=&"MARK<é>\ y`)
		return err
	},
	"stable_token": func(c *Client, ctx context.Context) error {
		_, err := c.StableToken(ctx, testAppID, "0123456789MARKabcdef0123456789ab", false)
		return err
	},
	"stable_token odd": func(c *Client, ctx context.Context) error {
		_, err := c.StableToken(ctx, testAppID, `x/+=&"MARK<é>\ y`, true)
		return err
	},
	"getticket": func(c *Client, ctx context.Context) error {
		_, err := c.Ticket(ctx, "77_token-MARK_abc", TicketJSAPI)
		return err
	},
	"tickettocode": func(c *Client, ctx context.Context) error {
		_, err := c.TicketToCode(ctx, "77_token-MARK_abc", "openid-MARK-openid", "6cb4MARK2b1")
		return err
	},
	"tickettocode odd": func(c *Client, ctx context.Context) error {
		_, err := c.TicketToCode(ctx, `t/+=&"MARK<é>`, `o "MARK\u0041`, "c\x00MARK\x1b[31m\nc")
		return err
	},
	"get_api_domain_ip": func(c *Client, ctx context.Context) error {
		_, err := c.APIDomainIP(ctx, "77_token-MARK_abc")
		return err
	},
}

// spelled returns the secrets that the server received, in every form in which it could quote them.
func spelled(r *http.Request) []string {
	b, _ := io.ReadAll(r.Body)
	fields := map[string]any{}
	_ = json.Unmarshal(b, &fields)
	for k, v := range r.URL.Query() {
		fields[k] = v[0]
	}
	all := []string{r.URL.RawQuery, r.RequestURI, string(b)}
	for _, field := range fields {
		s, _ := field.(string)
		if !strings.Contains(s, "MARK") {
			continue
		}
		js, _ := json.Marshal(s)
		in := string(js[1 : len(js)-1])
		all = append(all, s, in, strings.ReplaceAll(in, "/", `\/`), url.QueryEscape(s), url.PathEscape(s),
			strconv.Quote(s))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// errorPaths are servers that fail in every way. Their answers contain echo, a text with a secret of the request.
var errorPaths = map[string]func(w http.ResponseWriter, echo string){
	"errmsg": func(w http.ResponseWriter, echo string) {
		errmsg := "invalid " + echo + " rid: 663ddb36-1f2a3b4c-5d6e7f80"
		_ = json.NewEncoder(w).Encode(map[string]any{"errcode": 40013, "errmsg": errmsg})
	},
	"errmsg unknown errcode": func(w http.ResponseWriter, echo string) {
		_ = json.NewEncoder(w).Encode(map[string]any{"errcode": 99999, "errmsg": echo})
	},
	"long errmsg": func(w http.ResponseWriter, echo string) {
		_ = json.NewEncoder(w).Encode(map[string]any{"errcode": 40164, "errmsg": strings.Repeat("x", maxErrmsg-12) +
			echo})
	},
	"errmsg and status": func(w http.ResponseWriter, echo string) {
		w.WriteHeader(500)
		_ = json.NewEncoder(w).Encode(map[string]any{"errcode": -1, "errmsg": echo})
	},
	"not JSON": func(w http.ResponseWriter, echo string) { fmt.Fprintf(w, "<html>%s %s", echo, echo) },
	"long not JSON": func(w http.ResponseWriter, echo string) {
		fmt.Fprintf(w, "%s%s", strings.Repeat("x ", maxExcerpt/2-6), echo)
	},
	"field missing": func(w http.ResponseWriter, echo string) {
		_ = json.NewEncoder(w).Encode(map[string]any{"errcode": 0, "errmsg": echo})
	},
	"field mistyped": func(w http.ResponseWriter, echo string) {
		list := []string{echo}
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": list, "ticket": list, "code": list,
			"ip_list": echo})
	},
	"bad IP": func(w http.ResponseWriter, echo string) {
		_ = json.NewEncoder(w).Encode(map[string]any{"ip_list": []string{echo}})
	},
	"truncated": func(w http.ResponseWriter, echo string) { fmt.Fprintf(w, `{"errcode":0,"errmsg":"%s`, echo) },
	"cut off": func(w http.ResponseWriter, echo string) {
		w.Header().Set("Content-Length", "9999")
		_, _ = io.WriteString(w, echo)
	},
	"status": func(w http.ResponseWriter, echo string) { w.WriteHeader(502); _, _ = io.WriteString(w, echo) },
	"redirect": func(w http.ResponseWriter, echo string) {
		w.Header().Set("Location", "https://elsewhere.example/?"+echo)
		w.WriteHeader(302)
		_, _ = io.WriteString(w, echo)
	},
	"bad redirect": func(w http.ResponseWriter, echo string) {
		w.Header().Set("Location", "https://[elsewhere/?"+echo)
		w.WriteHeader(301)
	},
	"malformed response": func(w http.ResponseWriter, echo string) { hijack(w, echo+"\r\n\r\n") },
	"malformed status":   func(w http.ResponseWriter, echo string) { hijack(w, "HTTP/1.1 "+echo+"\r\n\r\n") },
	"malformed protocol": func(w http.ResponseWriter, echo string) { hijack(w, "HTTP/"+echo+" 200 OK\r\n\r\n") },
	"malformed header":   func(w http.ResponseWriter, echo string) { hijack(w, "HTTP/1.1 200 OK\r\n"+echo+"\r\n\r\n") },
	"malformed length": func(w http.ResponseWriter, echo string) {
		hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: "+echo+"\r\n\r\n")
	},
	"malformed encoding": func(w http.ResponseWriter, echo string) {
		hijack(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: "+echo+"\r\n\r\n")
	},
	"malformed chunk": func(w http.ResponseWriter, echo string) {
		hijack(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+echo+"\r\n")
	},
	"status text": func(w http.ResponseWriter, echo string) {
		hijack(w, "HTTP/1.1 555 "+echo+"\r\nContent-Length: 0\r\n\r\n")
	},
	"dropped": func(w http.ResponseWriter, _ string) { hijack(w, "") },
	"huge":    func(w http.ResponseWriter, echo string) { fmt.Fprint(w, echo, strings.Repeat(" ", maxBody)) },
	"new credential, broken": func(w http.ResponseWriter, _ string) {
		fmt.Fprint(w, `{"access_token":"NEWMARK+ NEW","ticket":"NEWMARK/ NEW" "expires_in":7200}`)
	},
	"new credential, no end": func(w http.ResponseWriter, _ string) { fmt.Fprint(w, `{"errcode":0,"ticket":"NEWMARK`) },
	"new credential, other name": func(w http.ResponseWriter, _ string) {
		fmt.Fprint(w, `{"token":"NEWMARK0123456789ABCDEF","expires_in":7200}`)
	},
	"new credential, status": func(w http.ResponseWriter, _ string) {
		w.WriteHeader(500)
		fmt.Fprint(w, `{"access_token":"NEWMARK","ticket":"NEWMARK","expires_in":7200}`)
	},
	"new credential, expiry": func(w http.ResponseWriter, _ string) {
		fmt.Fprint(w, `{"access_token":"NEWMARK","ticket":"NEWMARK","expires_in":"soon"}`)
	},
	"code, mistyped": func(w http.ResponseWriter, _ string) {
		fmt.Fprint(w, `{"errcode":0,"errmsg":"ok MARK","code":["MARK-8"],"activity_name":"MARK","wxa_path":{"MARK":1}}`)
	},
	"code, broken":    func(w http.ResponseWriter, _ string) { fmt.Fprint(w, `{"errcode":0,"code":"MARK"MARK}`) },
	"code, cut off":   func(w http.ResponseWriter, _ string) { fmt.Fprint(w, `{"errcode":0,"code":"MARK`) },
	"code, as a name": func(w http.ResponseWriter, _ string) { fmt.Fprint(w, `{"MARK":"8","data":{"code MARK":[]}}`) },
	"code, nested": func(w http.ResponseWriter, _ string) {
		fmt.Fprint(w, `{"data":{"data":{"data":{"code":"MARK"}},"list":[{"code":"MARK"}]}}`)
	},
	"code, no object": func(w http.ResponseWriter, _ string) { fmt.Fprint(w, `["MARK",{"MARK":"MARK"}]`) },
	"code, string":    func(w http.ResponseWriter, _ string) { fmt.Fprint(w, `"MARK"`) },
	"code, page":      func(w http.ResponseWriter, _ string) { fmt.Fprint(w, `<html><title>MARK</title>`) },
	"code, text":      func(w http.ResponseWriter, _ string) { fmt.Fprint(w, `your code is MARK`) },
	"code, binary":    func(w http.ResponseWriter, _ string) { fmt.Fprint(w, "\x00\xffMARK") },
	"code, coding": func(w http.ResponseWriter, _ string) {
		w.Header().Set("Content-Encoding", "MARK, gzip")
		fmt.Fprint(w, "\x1f\x8bMARK")
	},
	"code, status": func(w http.ResponseWriter, _ string) {
		w.WriteHeader(500)
		fmt.Fprint(w, `{"error":"MARK","code":"MARK"}`)
	},
	"code, cut connection": func(w http.ResponseWriter, _ string) {
		w.Header().Set("Content-Length", "9999")
		fmt.Fprint(w, `{"errcode":0,"code":"MARK"`)
	},
	"code, malformed": func(w http.ResponseWriter, _ string) { hijack(w, `{"code":"MARK"}`+"\r\n\r\n") },
	"code, header": func(w http.ResponseWriter, _ string) {
		hijack(w, "HTTP/1.1 200 OK\r\n"+`{"code":"MARK"}`+"\r\n\r\n")
	},
	"code, length": func(w http.ResponseWriter, _ string) {
		hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: MARK\r\n\r\n")
	},
	"code, encoding": func(w http.ResponseWriter, _ string) {
		hijack(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: MARK\r\n\r\n")
	},
	"code, status line": func(w http.ResponseWriter, _ string) {
		hijack(w, "HTTP/1.1 599 MARK\r\nContent-Length: 0\r\n\r\n")
	},
	"new credential, malformed": func(w http.ResponseWriter, _ string) {
		hijack(w, `{"access_token":"NEWMARK","ticket":"NEWMARK"}`+"\r\n\r\n")
	},
}

// hijack writes raw bytes and closes the connection.
func hijack(w http.ResponseWriter, raw string) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(conn, raw)
	conn.Close()
}

// assertSilent fails the test if any form of printing the values shows a MARK.
func assertSilent(t *testing.T, values ...any) {
	t.Helper()
	var out bytes.Buffer
	text, js := slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		text.Info("x", "v", v)
		js.Info("x", "v", v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
	}
	if i := strings.Index(out.String(), "MARK"); i >= 0 {
		t.Errorf("a secret shows: %s", out.String()[max(0, i-100):min(out.Len(), i+100)])
	}
}

// chain returns err and all errors that it wraps, and the structs that they point to.
func chain(err error) []any {
	if err == nil {
		return nil
	}
	all := []any{err}
	switch e := err.(type) { //nolint:errorlint // each link of the chain by itself
	case *Error:
		all = append(all, *e)
	case *cause:
		all = append(all, *e)
	}
	switch e := err.(type) { //nolint:errorlint // as above
	case interface{ Unwrap() error }:
		all = append(all, chain(e.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			all = append(all, chain(inner)...)
		}
	}
	return all
}

func TestNoErrorAndNoCallCarriesASecret(t *testing.T) {
	t.Parallel()
	for path, answer := range errorPaths {
		for name, call := range secretCalls {
			t.Run(path+"/"+name, func(t *testing.T) {
				t.Parallel()
				n, total := 0, 1
				srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					echo := spelled(r)
					total = len(echo)
					answer(w, echo[n])
				}))
				srv.Config.ErrorLog = discardLog
				srv.Start()
				defer srv.Close()
				for ; n < total; n++ {
					var attempts calls
					c := newClient(t, Config{URLs: []string{srv.URL}, OnCall: attempts.add})
					err := call(c, t.Context())
					_ = failure(t, err)
					assertSilent(t, chain(err)...)
					for _, call := range attempts.all {
						assertSilent(t, call, *call.Err)
					}
					c.Close()
				}
			})
		}
	}
}

// A custom RoundTripper may return any error, and many errors contain the URL.
func TestNoCauseCarriesASecret(t *testing.T) {
	t.Parallel()
	paths := map[string]func(*http.Request) error{
		"url.Error": func(r *http.Request) error { return &url.Error{Op: "Get", URL: r.URL.String(), Err: io.EOF} },
		"wrapped": func(r *http.Request) error {
			return fmt.Errorf("relay: %w", &url.Error{Op: "Get", URL: r.URL.String(), Err: io.EOF})
		},
		"text":    func(r *http.Request) error { return errors.New("cannot GET " + r.URL.String() + ": reset") },
		"request": func(r *http.Request) error { return &requestError{r} },
		"dial": func(r *http.Request) error {
			return &net.OpError{Op: "dial", Err: &net.AddrError{Err: r.URL.RawQuery, Addr: r.URL.String()}}
		},
		"no URL": func(*http.Request) error { return errors.New("no cause") },
		"http.Error": func(r *http.Request) error {
			_, err := (&http.Client{Transport: refuse{}}).Do(r.Clone(r.Context()))
			return err
		},
	}
	for path, fail := range paths {
		for name, call := range secretCalls {
			t.Run(path+"/"+name, func(t *testing.T) {
				t.Parallel()
				var attempts calls
				answer := func(r *http.Request) (*http.Response, error) { return nil, fail(r) }
				c := newClient(t, Config{OnCall: attempts.add, Transport: byHost{"api.weixin.qq.com": answer}})
				err := call(c, t.Context())
				_ = failure(t, err)
				if strings.Contains(err.Error(), "://") {
					t.Errorf("a URL shows: %v", err)
				}
				assertSilent(t, chain(err)...)
				for _, call := range attempts.all {
					assertSilent(t, call, *call.Err)
				}
			})
		}
	}
}

type refuse struct{}

func (refuse) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, errors.New("refused " + r.URL.String())
}

// requestError holds the whole request.
type requestError struct{ r *http.Request }

func (e *requestError) Error() string { return fmt.Sprint("failed: ", e.r.URL) }

func TestIssuedNeverShowsItsValue(t *testing.T) {
	t.Parallel()
	i := Issued{Value: "MARK", ExpiresIn: time.Hour, SentAt: noon}
	assertSilent(t, i, &i, []Issued{i}, map[string]Issued{"x": i}, struct{ I Issued }{i})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%t", "%08.3f"} {
		equal(t, verb, fmt.Sprintf(verb, i), "credential of 4 bytes, expires in 1h0m0s from 2026-01-02T12:00:00Z")
	}
}
