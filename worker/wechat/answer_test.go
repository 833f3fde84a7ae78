package wechat

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf8"
)

func TestUndocumentedAnswersAreBroken(t *testing.T) {
	t.Parallel()
	type testCase struct{ body, want string }
	long := strings.Repeat("a", maxValue+1)
	all := map[string]testCase{
		"empty":                {"", "it is empty"},
		"white space":          {" \r\n\t", "it is empty"},
		"byte order mark":      {"\xEF\xBB\xBF", "it is empty"},
		"two byte order marks": {"\xEF\xBB\xBF\xEF\xBB\xBF{}", "not JSON at offset 3 of 8 bytes"},
		"html":                 {"<html>login</html>", "not JSON at offset 0 of 18 bytes: invalid character '<'"},
		"binary":               {"\x00\x1f\x8b\xff", "not JSON at offset 0"},
		"truncated":            {`{"errcode":0,`, "not JSON at offset 13 of 13 bytes: unexpected end"},
		"trailing data":        {`{"errcode":0} {}`, "not JSON at offset 14 of 16 bytes"},
		"control character":    {"{\n\x01}", "not JSON at offset 2 of 4 bytes"},
		"after a backslash":    {"{\"errmsg\":\"a\\\nb\"}", "not JSON at offset 13 of 17 bytes"},
		"cut with a control":   {"{\"errmsg\":\"a\nb", "not JSON at offset 14 of 14 bytes: unexpected end"},
		"a letter":             {`{"code":"A"B}`, "not JSON at offset 11 of 13 bytes: invalid character after object"},
		"single quotes":        {`{'errcode':0}`, "not JSON at offset 1"},
		"array":                {`[]`, "not a JSON object"},
		"string":               {`"ok"`, "not a JSON object"},
		"number":               {`0`, "not a JSON object"},
		"null":                 {`null`, "not a JSON object"},
		"not UTF-8":            {"{\"x\":\"\xff\"}", "not UTF-8 at offset 6 of 9 bytes"},
		"errcode null":         {`{"errcode":null}`, "errcode is not an integer"},
		"errcode word":         {`{"errcode":"ok"}`, "errcode is not an integer"},
		"errcode fraction":     {`{"errcode":1.5}`, "errcode is not an integer"},
		"errcode empty":        {`{"errcode":""}`, "errcode is not an integer"},
		"errcode object":       {`{"errcode":{}}`, "errcode is not an integer"},
		"huge":                 {strings.Repeat(" ", maxBody-1) + "{}", "it is longer than 1 MiB"},
		"deep":                 {strings.Repeat("[", 1<<19), "not JSON"},
	}
	special := map[Endpoint]map[string]testCase{
		EndpointToken: {
			"nothing":        {`{}`, "it has no access_token"},
			"other case":     {`{"Access_Token":"A","expires_in":1}`, "it has no access_token"},
			"errcode 0 only": {`{"errcode":0,"errmsg":"ok"}`, "it has no access_token"},
			"null":           {`{"access_token":null,"expires_in":1}`, "access_token is not a string"},
			"number":         {`{"access_token":1,"expires_in":1}`, "access_token is not a string"},
			"empty":          {`{"access_token":"","expires_in":1}`, "access_token is empty"},
			"space": {`{"access_token":"a b","expires_in":1}`,
				"access_token has an unprintable byte at 1"},
			"newline": {`{"access_token":"a\n","expires_in":1}`,
				"access_token has an unprintable byte at 1"},
			"not ASCII":           {`{"access_token":"é","expires_in":1}`, "access_token has an unprintable byte at 0"},
			"long":                {`{"access_token":"` + long + `","expires_in":1}`, "access_token has 2049 bytes"},
			"no expires_in":       {`{"access_token":"A"}`, "it has no expires_in"},
			"expires_in 0":        {`{"access_token":"A","expires_in":0}`, "expires_in is 0"},
			"expires_in negative": {`{"access_token":"A","expires_in":-1}`, "expires_in is -1"},
			"expires_in word":     {`{"access_token":"A","expires_in":"7200s"}`, "expires_in is not an integer"},
			"expires_in spaces":   {`{"access_token":"A","expires_in":" 7200"}`, "expires_in is not an integer"},
			"expires_in empty":    {`{"access_token":"A","expires_in":""}`, "expires_in is not an integer"},
			"expires_in in words": {`{"access_token":"A","expires_in":"-1"}`, "expires_in is -1"},
			"expires_in fraction": {`{"access_token":"A","expires_in":7200.0}`, "expires_in is not an integer"},
			"expires_in null":     {`{"access_token":"A","expires_in":null}`, "expires_in is not an integer"},
			"expires_in huge": {`{"access_token":"A","expires_in":99999999999999999999}`,
				"expires_in is not an integer"},
			"expires_in 31 days": {`{"access_token":"A","expires_in":2678400}`, "expires_in is 2678400"},
		},
		EndpointTicket: {
			"a token":   {`{"errcode":0,"access_token":"A","expires_in":1}`, "it has no ticket"},
			"empty":     {`{"errcode":0,"ticket":"","expires_in":1}`, "ticket is empty"},
			"no expiry": {`{"errcode":0,"ticket":"A"}`, "it has no expires_in"},
		},
		EndpointTicketToCode: {
			"nothing": {`{"errcode":0,"errmsg":"ok"}`, "it has no code"},
			"number":  {`{"errcode":0,"code":8}`, "code is not a string"},
			"null":    {`{"errcode":0,"code":null}`, "code is not a string"},
			"empty":   {`{"errcode":0,"code":""}`, "code is empty"},
		},
		EndpointAPIDomainIP: {
			"nothing": {`{}`, "it has no ip_list"},
			"null":    {`{"ip_list":null}`, "ip_list is not an array of strings"},
			"string":  {`{"ip_list":"1.2.3.4"}`, "ip_list is not an array of strings"},
			"number":  {`{"ip_list":["1.2.3.4",1]}`, "ip_list is not an array of strings"},
			"hole":    {`{"ip_list":["1.2.3.4",null]}`, "ip_list is not an array of strings"},
			"name":    {`{"ip_list":["1.2.3.4","api.weixin.qq.com"]}`, "ip_list has no IP at index 1"},
		},
	}
	special[EndpointStableToken] = special[EndpointToken]
	for endpoint, call := range endpoints {
		for _, group := range []map[string]testCase{all, special[endpoint]} {
			for name, tt := range group {
				t.Run(string(endpoint)+" "+name, func(t *testing.T) {
					t.Parallel()
					_, err := call(serveBody(t, 200, tt.body), t.Context())
					e := failure(t, err)
					equal(t, "class", e.Class, ClassBroken)
					equal(t, "HTTP status", e.HTTPStatus, 200)
					equal(t, "Sent", e.Sent, true)
					if e.Err == nil {
						t.Error("the error has no cause")
					}
					contains(t, "error", err.Error(), tt.want)

					equal(t, "excerpt is UTF-8", utf8.ValidString(e.Excerpt), true)
					if len(e.Excerpt) > maxExcerpt {
						t.Errorf("the excerpt has %d bytes", len(e.Excerpt))
					}
					// All bodies show an excerpt, except those whose beginning is white space.
					isBlank := strings.Trim(tt.body, "\xEF\xBB\xBF \r\n\t") == ""
					equal(t, "excerpt is empty", e.Excerpt == "", isBlank)
				})
			}
		}
	}
}

func TestValuesAtTheLimitsAreAccepted(t *testing.T) {
	t.Parallel()
	value := strings.Repeat("~", maxValue)
	body := `{"errcode":"0","access_token":"` + value + `","expires_in":2592000}`
	got, err := serveBody(t, 200, body).Token(t.Context(), testAppID, testSecret)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "value", got.Value, value)
	equal(t, "life", got.ExpiresIn, maxExpiresIn)

	body = `{"code":"8","x":"` + strings.Repeat("x", maxBody-len(`{"code":"8","x":""}`)) + `"}`
	code, err := serveBody(t, 200, body).TicketToCode(t.Context(), testToken, testOpenID, testTicket)
	if err != nil {
		t.Fatal(err)
	}
	if string(code) != body { // a difference of 1 MiB is not printed
		t.Errorf("got %d bytes, want the %d bytes of the answer", len(code), len(body))
	}
}

func TestAnotherStatusIsAServerFailure(t *testing.T) {
	t.Parallel()
	for _, status := range []int{201, 204, 301, 302, 307, 308, 400, 403, 404, 429, 500, 502, 503} {
		for endpoint, call := range endpoints {
			var followed atomic.Bool
			isRedirect := status >= 300 && status < 400
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/elsewhere" {
					followed.Store(true)
				}
				if isRedirect {
					w.Header().Set("Location", "/elsewhere?"+r.URL.RawQuery)
				}
				w.WriteHeader(status)
				if status != 204 {
					_, _ = io.WriteString(w, `<html>`+r.URL.String())
				}
			})
			_, err := call(c, t.Context())
			e := failure(t, err)
			what := fmt.Sprint(" of ", endpoint, " with HTTP ", status)
			equal(t, "class"+what, e.Class, ClassServer)
			equal(t, "status"+what, e.HTTPStatus, status)
			equal(t, "Sent"+what, e.Sent, true)
			equal(t, "errcode"+what, e.Errcode, 0)
			equal(t, "redirect followed"+what, followed.Load(), false)
			equal(t, "redirect in the error"+what, strings.Contains(err.Error(), "a redirect, not followed"),
				isRedirect)
			equal(t, "advice"+what, strings.Contains(e.Advice, "look for a proxy or a login page"), isRedirect)
			equal(t, "an advice"+what, strings.Contains(e.Advice, "WECHAT_API_URL"), true)
		}
	}
}

// An HTTP 500 with errcode 0 or with a credential is not a success.
func TestNoSuccessWithAnotherStatus(t *testing.T) {
	t.Parallel()
	_, err := serveBody(t, 500, sample(t, "getticket_ok.json")).Ticket(t.Context(), testToken, TicketJSAPI)
	equal(t, "class", failure(t, err).Class, ClassServer)
	if strings.Contains(err.Error(), "bxLdikRXVbTPdHSM05e5u5sUoXNKdvsdshFKA") {
		t.Errorf("the ticket is in the error: %v", err)
	}
}

// The body of HTTP 101 is the connection itself, and no deadline ends it.
func TestSwitchingProtocolsDoesNotHang(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "x")
		w.WriteHeader(http.StatusSwitchingProtocols)
	})
	_, err := c.Token(t.Context(), testAppID, testSecret)
	e := failure(t, err)
	equal(t, "class", e.Class, ClassServer)
	equal(t, "HTTP status", e.HTTPStatus, 101)
}

func TestABodyThatIsCutOffIsATransportError(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"errcode":0`)
	})
	_, err := c.TicketToCode(t.Context(), testToken, testOpenID, testTicket)
	e := failure(t, err)
	equal(t, "class", e.Class, ClassTransport)
	equal(t, "HTTP status", e.HTTPStatus, 200)
	equal(t, "Sent", e.Sent, true)
	isError(t, err, io.ErrUnexpectedEOF)
	contains(t, "error", err.Error(), "(HTTP 200) was cut off: unexpected EOF")
}

func TestABodyThatNeverEndsEndsAtTheDeadline(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"errcode":0`)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	c.timeout /= 50
	_, err := c.Token(t.Context(), testAppID, testSecret)
	equal(t, "class", failure(t, err).Class, ClassTransport)
	isError(t, err, context.DeadlineExceeded)
	contains(t, "error", err.Error(), "timeout of 100ms")
}
