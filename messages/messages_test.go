package messages

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The codes of the contract (design §4).
func TestEverySymbolHasItsCodeAndItsSentinel(t *testing.T) {
	t.Parallel()
	for symbol, code := range map[Symbol]int{
		InvalidRequest: 400, UnknownAccount: 404, UnknownKind: 404, NotConfigured: 409, Rejected: 422, Throttled: 429,
		QuotaExhausted: 429, Upstream: 502, Overloaded: 503, NoCredential: 503, ShuttingDown: 503, UpstreamTimeout: 504, "other": 0,
	} {
		if symbol.Code() != code {
			t.Errorf("%s has code %d, want %d", symbol, symbol.Code(), code)
		}
		sentinels := []error{
			ErrInvalidRequest, ErrUnknownAccount, ErrUnknownKind, ErrNotConfigured, ErrRejected, ErrThrottled, ErrQuotaExhausted, ErrUpstream,
			ErrOverloaded, ErrNoCredential, ErrShuttingDown, ErrUpstreamTimeout,
		}
		matches := slices.DeleteFunc(sentinels, func(sentinel error) bool { return !errors.Is(fmt.Errorf("wrapped: %w", Errorf(symbol, "m")), sentinel) })
		if want := min(code, 1); len(matches) != want || want == 1 && !strings.HasPrefix(matches[0].Error(), string(symbol)+" ") {
			t.Errorf("%s is %v", symbol, matches)
		}
	}
}

func TestErrorIsTheContractOnTheWire(t *testing.T) {
	t.Parallel()
	full := &Error{Symbol: Rejected, Message: "m", Errcode: 40097, Errmsg: "invalid args", RID: "r"}
	for want, e := range map[string]*Error{
		`{"error":"rejected","message":"m","errcode":40097,"errmsg":"invalid args","rid":"r"}`: full,
		`{"error":"overloaded","message":"full: 3","retry_after_ms":2}`:                        Errorf(Overloaded, "full: %d", 3).After(1500 * time.Microsecond),
		`{"error":"no_credential","message":"none","retry_after_ms":1}`:                        Errorf(NoCredential, "none").After(0),
		`{"error":"invalid_request","message":"one\nline"}`:                                    Errorf(InvalidRequest, "one\nline"),
	} {
		got, err := json.Marshal(e)
		if err != nil || string(got) != want {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
		header := e.Header()
		if header[HeaderErrorCode][0] != fmt.Sprint(e.Symbol.Code()) || strings.ContainsAny(header[HeaderError][0], "\r\n") || header[HeaderError][0] == "" {
			t.Errorf("headers %v", header)
		}
		if back := decodeError(header, got); !cmp.Equal(back, e) {
			t.Errorf("read back as %+v", back)
		}
		if !errors.Is(fmt.Errorf("wrapped: %w", e), &Error{Symbol: e.Symbol}) || errors.Is(e, &Error{Symbol: "other"}) {
			t.Errorf("errors.Is does not tell %s", e.Symbol)
		}
	}
}

// An error of another service, or of NATS itself, is an error too.
func TestForeignErrorsAreNotTakenForReplies(t *testing.T) {
	t.Parallel()
	e := decodeError(map[string][]string{HeaderErrorCode: {"500"}, HeaderError: {"broken"}}, []byte("not JSON"))
	if e == nil || e.Message != "broken" || !strings.Contains(string(e.Symbol), "500") || e.Code() != 500 {
		t.Errorf("%+v", e)
	}
	// A worker of a later version: what to do about its symbol, the number says.
	e = decodeError(map[string][]string{HeaderErrorCode: {"503"}}, []byte(`{"error":"on_holiday","message":"later"}`))
	if e == nil || e.Symbol != "on_holiday" || e.Code() != 503 || e.Error() != "on_holiday (503): later" {
		t.Errorf("%+v", e)
	}
	if decodeError(nil, []byte(`{"error":"rejected"}`)) != nil {
		t.Error("a reply without the headers was taken for an error")
	}
}

// What tickettocode.txt shows, its missing comma put in.
func TestCodeHoldsTheSampleFieldByField(t *testing.T) {
	t.Parallel()
	const sample = `{"errcode":0,"errmsg":"ok","code":"8","code_start":0,"code_end":200,"activity_name":"test_name","product_brand":"test_brand","product_title":"test_title","product_code":"test_code","wxa_appid":"wx3sxjifjwojfsffef","wxa_path":"pages/index/index","application_id":581865877,"isv_application_id":"test_id"}`
	want := Code{
		Errmsg: "ok", Code: "8", CodeEnd: 200, ActivityName: "test_name", ProductBrand: "test_brand", ProductTitle: "test_title",
		ProductCode: "test_code", WxaAppID: "wx3sxjifjwojfsffef", WxaPath: "pages/index/index", ApplicationID: 581865877, ISVApplicationID: "test_id",
	}
	var got Code
	if err := json.Unmarshal([]byte(sample), &got); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}
