package wechat

import (
	"encoding/json"
	"testing"
	"time"
)

// What is accepted beyond WeChat's documents, because nothing is guessed by it (docs/wechat-api.md#answers).

func TestNumberInAStringIsTheNumber(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]time.Duration{
		`{"access_token":"A","expires_in":"7200"}`:                             2 * time.Hour,
		`{"errcode":"0","errmsg":"ok","access_token":"A","expires_in":"7200"}`: 2 * time.Hour,
		`{"access_token":"A","expires_in":"1"}`:                                time.Second,
		`{"access_token":"A","expires_in":7200}`:                               2 * time.Hour,
	} {
		got, err := serveBody(t, 200, body).Token(t.Context(), testAppID, testSecret)
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		equal(t, "life of "+body, got.ExpiresIn, want)
	}
	_, err := serveBody(t, 200, `{"errcode":"40001","errmsg":"no"}`).Ticket(t.Context(), testToken, TicketJSAPI)
	equal(t, "class of an errcode in a string", failure(t, err).Class, ClassDeadToken)
}

func TestRawControlCharacterInAStringIsEscaped(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		"{\"code\":\"8\",\"activity_name\":\"a\nb\"}":      `{"code":"8","activity_name":"a\u000ab"}`,
		"{\"code\":\"8\x00\t\",\n\"x\":[\"\x1f\"]}":        "{\"code\":\"8\\u0000\\u0009\",\n\"x\":[\"\\u001f\"]}",
		"{\"code\":\"8\",\"a\rb\":1}":                      `{"code":"8","a\u000db":1}`,
		"{\"code\":\"8\",\"x\":\"\\\\\n\\\"\n\"}":          `{"code":"8","x":"\\\u000a\"\u000a"}`,
		"{\"code\":\"8\",\"x\":\"\x7f\u0085\"}":            "{\"code\":\"8\",\"x\":\"\x7f\u0085\"}",
		"{\"errcode\":0,\"errmsg\":\"\n\",\"code\":\"8\"}": `{"errcode":0,"errmsg":"\u000a","code":"8"}`,
	} {
		got, err := serveBody(t, 200, body).TicketToCode(t.Context(), testToken, testOpenID, testTicket)
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		equal(t, "answer", string(got), want)
		equal(t, "the answer is JSON", json.Valid(got), true)
	}
	// The errcode of a refusal counts too, and its text is one line.
	_, err := serveBody(t, 200, "{\"errcode\":40097,\"errmsg\":\"invalid\nargs\"}").
		TicketToCode(t.Context(), testToken, testOpenID, testTicket)
	equal(t, "error", err.Error(), `tickettocode: WeChat refused: errcode 40097 "invalid args"`)
	// A credential has no control character, escaped or not.
	_, err = serveBody(t, 200, "{\"access_token\":\"A\n\",\"expires_in\":7200}").
		Token(t.Context(), testAppID, testSecret)
	equal(t, "class", failure(t, err).Class, ClassBroken)
}

// FuzzEscapeControls compares with encoding/json: what was JSON stays as it is, and what becomes JSON has the strings
// that a reader would have who takes raw control characters for themselves.
func FuzzEscapeControls(f *testing.F) {
	f.Add([]byte("{\"a\nb\":\"c\\\\\n\"}"))
	f.Add([]byte("[\"\\\n\"]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		blanked, escaped := escapeControls(text)
		equal(t, "length of the blanked text", len(blanked), len(text))
		equal(t, "both are JSON", json.Valid(blanked), json.Valid(escaped))
		if json.Valid(text) {
			equal(t, "JSON", string(escaped), string(text))
		}
	})
}
