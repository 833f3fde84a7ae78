package wechattest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A web site that a developer visits can send forms and simple requests to every address of the machine.
func TestControlTakesNothingFromWebSites(t *testing.T) {
	t.Parallel()
	const host = "127.0.0.1:8091"
	for _, tt := range []struct {
		name    string
		method  string
		headers map[string]string
		refused bool
	}{
		{"curl -d", "POST", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, false},
		{"a client with JSON", "POST", map[string]string{"Content-Type": "application/json"}, false},
		{"a client without a type", "POST", nil, false},
		{"curl -X DELETE", "DELETE", nil, false},
		{"the address bar", "POST", map[string]string{"Sec-Fetch-Site": "none"}, false},
		{"its own page", "POST", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "http://" + host}, false},

		{"a form", "POST", map[string]string{
			"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate",
			"Origin": "https://evil.example",
		}, true},
		{"a form with text/plain", "POST", map[string]string{
			"Content-Type": "text/plain", "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example",
		}, true},
		{"fetch without cors", "POST", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, true},
		{"another port of the machine", "POST", map[string]string{
			"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:3000",
		}, true},
		{"an old browser", "POST", map[string]string{"Origin": "https://evil.example"}, true},
		{"an old browser, a sandboxed frame", "POST", map[string]string{"Origin": "null"}, true},
		{"an old browser, another port", "POST", map[string]string{"Origin": "http://127.0.0.1:3000"}, true},
		{"fetch of DELETE", "DELETE", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
			true},
	} {
		fx := newFixture(t)
		path, body := "/faults", `{"endpoint":"token","errcode":-1}`
		if tt.method == "DELETE" {
			fx.Inject(Fault{Endpoint: "token", Errcode: -1})
			body = ""
		}
		r := httptest.NewRequest(tt.method, "http://"+host+path, strings.NewReader(body))
		for name, value := range tt.headers {
			r.Header.Set(name, value)
		}
		rec := httptest.NewRecorder()
		before := len(fx.Faults())
		fx.Control().ServeHTTP(rec, r)
		want := http.StatusOK
		if tt.refused {
			want = http.StatusForbidden
		}
		if rec.Code != want {
			t.Errorf("%s: status %d, want %d: %s", tt.name, rec.Code, want, rec.Body)
		}
		if changed := len(fx.Faults()) != before; changed == tt.refused {
			t.Errorf("%s: the simulation was changed: %t", tt.name, changed)
		}
		if tt.refused && !strings.Contains(rec.Body.String(), `{"error":"`) {
			t.Errorf("%s: %s is not an error of the control API", tt.name, rec.Body)
		}
	}
}
