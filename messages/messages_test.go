package messages

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEverySymbolHasItsCodeAndItsSentinel(t *testing.T) {
	t.Parallel()
	sentinels := map[Symbol]error{
		InvalidRequest: ErrInvalidRequest, UnknownAccount: ErrUnknownAccount, UnknownKind: ErrUnknownKind,
		NotConfigured: ErrNotConfigured, Rejected: ErrRejected, Throttled: ErrThrottled,
		QuotaExhausted: ErrQuotaExhausted, Upstream: ErrUpstream, Overloaded: ErrOverloaded,
		NoCredential: ErrNoCredential, ShuttingDown: ErrShuttingDown, UpstreamTimeout: ErrUpstreamTimeout,
	}
	for symbol, code := range map[Symbol]int{
		InvalidRequest: 400, UnknownAccount: 404, UnknownKind: 404, NotConfigured: 409, Rejected: 422, Throttled: 429,
		QuotaExhausted: 429, Upstream: 502, Overloaded: 503, NoCredential: 503, ShuttingDown: 503, UpstreamTimeout: 504,
		"other": 0,
	} {
		if symbol.Code() != code {
			t.Errorf("%s has code %d, want %d", symbol, symbol.Code(), code)
		}
		err := fmt.Errorf("wrapped: %w", Errorf(symbol, "m"))
		for other, sentinel := range sentinels {
			if got, want := errors.Is(err, sentinel), other == symbol; got != want {
				t.Errorf("errors.Is(an error with %s, the sentinel of %s) is %t", symbol, other, got)
			}
		}
		if _, ok := sentinels[symbol]; !ok && symbol != "other" {
			t.Errorf("%s has no sentinel", symbol)
		}
	}
}

func TestErrorIsTheContractOnTheWire(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]*Error{
		`{"error":"rejected","message":"m","errcode":40097,"errmsg":"invalid args","rid":"r"}`: {
			Symbol: Rejected, Message: "m", Errcode: 40097, Errmsg: "invalid args", RID: "r",
		},
		`{"error":"overloaded","message":"3","retry_after_ms":2}`: Errorf(Overloaded, "%d", 3).
			After(1500 * time.Microsecond),
		`{"error":"no_credential","message":"m","retry_after_ms":1}`: Errorf(NoCredential, "m").After(0),
		`{"error":"invalid_request","message":"one\nline"}`:          Errorf(InvalidRequest, "one\nline"),
	} {
		body, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(body)); diff != "" {
			t.Error(diff)
		}
		header := e.Header()
		wantHeader := map[string][]string{
			"Wxkeeper-Reply":          {"1"},
			"Nats-Service-Error-Code": {fmt.Sprint(e.Symbol.Code())},
			"Nats-Service-Error":      {strings.ReplaceAll(e.Message, "\n", " ")},
		}
		if diff := cmp.Diff(wantHeader, header); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(e, decodeError(header, body)); diff != "" {
			t.Errorf("decoded: %s", diff)
		}
	}
}

func TestErrorOfAnotherServiceIsNotTakenForAReply(t *testing.T) {
	t.Parallel()
	got := decodeError(map[string][]string{HeaderErrorCode: {"500"}, HeaderError: {"broken"}}, []byte("not JSON"))
	if diff := cmp.Diff(&Error{Symbol: "code_500", Message: "broken", HeaderCode: 500}, got); diff != "" {
		t.Error(diff)
	}
	if decodeError(nil, []byte(`{"error":"rejected"}`)) != nil {
		t.Error("a reply without the headers was taken for an error")
	}
}

// A worker of a later version may use a symbol that is unknown here. Its number then says what to do.
func TestErrorWithAnUnknownSymbolKeepsItsCode(t *testing.T) {
	t.Parallel()
	e := decodeError(map[string][]string{HeaderErrorCode: {"503"}}, []byte(`{"error":"on_holiday","message":"later"}`))
	if e == nil {
		t.Fatal("no error")
	}
	if e.Code() != 503 {
		t.Errorf("the code is %d, want 503", e.Code())
	}
	if diff := cmp.Diff("on_holiday (503): later", e.Error()); diff != "" {
		t.Error(diff)
	}
}

// The sample of WeChat's page of tickettocode (docs/wechat-api.md), with the comma that the page lacks.
func TestCodeHoldsTheSampleFieldByField(t *testing.T) {
	t.Parallel()
	const sample = `{"errcode":0,"errmsg":"ok","code":"8","code_start":0,"code_end":200,"activity_name":"test_name",` +
		`"product_brand":"test_brand","product_title":"test_title","product_code":"test_code",` +
		`"wxa_appid":"wx3sxjifjwojfsffef","wxa_path":"pages/index/index","application_id":581865877,` +
		`"isv_application_id":"test_id"}`
	want := Code{
		Errmsg: "ok", Code: "8", CodeEnd: 200, ActivityName: "test_name", ProductBrand: "test_brand",
		ProductTitle: "test_title", ProductCode: "test_code", WxaAppID: "wx3sxjifjwojfsffef",
		WxaPath: "pages/index/index", ApplicationID: 581865877, ISVApplicationID: "test_id",
	}
	var got Code
	if err := json.Unmarshal([]byte(sample), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Programs in other languages compare these words.
func TestStatesAndReasonsKeepTheirWords(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]State{
		"fresh": StateFresh, "failing": StateFailing, "refused": StateRefused, "expired": StateExpired,
		"missing": StateMissing, "not_permitted": StateNotPermitted,
	} {
		if string(got) != want {
			t.Errorf("a state is %q, want %q", got, want)
		}
	}
	for want, got := range map[string]Reason{
		"refreshed": ReasonRefreshed, "not_current": ReasonNotCurrent, "alive": ReasonAlive,
		"unchanged": ReasonUnchanged,
		"fresh":     ReasonFresh, "backoff": ReasonBackoff, "refused": ReasonRefused, "paced": ReasonPaced,
		"no_token": ReasonNoToken, "others": ReasonOthers,
		"due": ReasonDue, "retry": ReasonRetry, "missing": ReasonMissing, "expired": ReasonExpired,
		"reported": ReasonReported, "unpublished": ReasonUnpublished, "new_settings": ReasonNewSettings,
		"refreshing": ReasonRefreshing,
		"lost":       ReasonLost, "forgotten": ReasonForgotten,
		"not_permitted": ReasonNotPermitted, "disconnected": ReasonDisconnected, "unwritable": ReasonUnwritable,
		"lease_held": ReasonLeaseHeld, "internal_error": ReasonInternalError,
	} {
		if string(got) != want {
			t.Errorf("a reason is %q, want %q", got, want)
		}
	}
}
