package wechat

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// fuzzSecret is a secret of the request; it replaces $S in an input.
	fuzzSecret = "fuzz-SECRET_of+the/request"
	// fuzzIssued is a credential that only the answer has; it replaces $T in an input.
	fuzzIssued = "fuzzISSUED0123456789-credential_of_the_answer"
)

// fuzzRead reads an answer of endpoint e with status and body, and checks what holds for every failure.
func fuzzRead(t *testing.T, e Endpoint, status uint16, body []byte, accept func(a answer) error) *Error {
	t.Helper()
	body = bytes.ReplaceAll(body, []byte("$S"), []byte(fuzzSecret))
	body = bytes.ReplaceAll(body, []byte("$T"), []byte(fuzzIssued))
	r := &request{
		endpoint: e, mask: newMask(fuzzSecret),
		accept: func(a answer, _ time.Time) error { return accept(a) },
	}
	err := r.read(&Error{Endpoint: e, Host: "host", HTTPStatus: int(status), Sent: true}, body, time.Now())
	if err == nil {
		if status != 200 {
			t.Fatalf("HTTP %d is a success", status)
		}
		return nil
	}
	if err.Class == 0 {
		t.Fatal("the error has no class")
	}
	equal(t, "HTTP status", err.HTTPStatus, int(status))
	if n := len(err.Errmsg); n > maxErrmsg {
		t.Fatalf("the errmsg has %d bytes", n)
	}
	if n := len(err.Excerpt); n > maxExcerpt {
		t.Fatalf("the excerpt has %d bytes", n)
	}
	for _, s := range []string{err.Error(), err.Errmsg, err.RID, err.Excerpt, err.Advice} {
		checkText(t, s)
	}
	text := err.Excerpt
	if err.Err != nil {
		text += err.Err.Error()
	}
	if strings.Contains(text, fuzzIssued) {
		t.Fatalf("a credential shows: %s", err)
	}
	return err
}

// checkText fails the test unless s is one line of UTF-8 without the secret.
func checkText(t *testing.T, s string) {
	t.Helper()
	switch {
	case strings.Contains(s, fuzzSecret):
		t.Fatalf("the secret shows: %q", s)
	case !utf8.ValidString(s):
		t.Fatalf("not UTF-8: %q", s)
	case strings.ContainsFunc(s, unicode.IsControl):
		t.Fatalf("a control character: %q", s)
	}
}

func seed(f *testing.F, bodies ...string) {
	f.Helper()
	for _, name := range []string{
		"getaccesstoken_ok.json", "getaccesstoken_error.json", "getticket_ok.json",
		"tickettocode_malformed.json", "tickettocode_repaired.json",
	} {
		bodies = append(bodies, sample(f, name))
	}
	bodies = append(bodies, "", "null", "[]", "\xEF\xBB\xBF{}", "<html>$S$T", "\x00\xff",
		`{"errcode":"40164","errmsg":"invalid ip 8.149.1.2 ipv6 ::ffff:8.149.1.2 $S rid: 663ddb36-1f2a3b4c-5d6e7f80"}`,
		`{"access_token":"$T","expires_in":"7200","ticket":"$T"`, `{"x":"$S\u0000$T`,
		`{"ip_list":["101.89.47.18","::1","1.2.3.0/24"]}`)
	for _, b := range bodies {
		f.Add(uint16(200), []byte(b))
		f.Add(uint16(502), []byte(b))
	}
}

func fuzzIssuedBy(f *testing.F, e Endpoint, name string) {
	f.Helper()
	seed(f)
	f.Fuzz(func(t *testing.T, status uint16, body []byte) {
		var got Issued
		err := fuzzRead(t, e, status, body, func(a answer) (err error) {
			got, err = a.issued(name)
			return err
		})
		if err != nil {
			return
		}
		if n := len(got.Value); n == 0 || n > maxValue {
			t.Fatalf("the value has %d bytes", n)
		}
		if strings.ContainsFunc(got.Value, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Fatalf("value %q", got.Value)
		}
		if got.ExpiresIn <= 0 || got.ExpiresIn > maxExpiresIn {
			t.Fatalf("expires in %s", got.ExpiresIn)
		}
	})
}

func FuzzDecodeToken(f *testing.F)  { fuzzIssuedBy(f, EndpointToken, "access_token") }
func FuzzDecodeTicket(f *testing.F) { fuzzIssuedBy(f, EndpointTicket, "ticket") }

func FuzzDecodeCode(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, status uint16, body []byte) {
		var got json.RawMessage
		err := fuzzRead(t, EndpointTicketToCode, status, body, func(a answer) (err error) {
			got, err = a.code()
			return err
		})
		if err != nil {
			return
		}
		var fields map[string]any
		if e := json.Unmarshal(got, &fields); e != nil || !utf8.Valid(got) {
			t.Fatalf("%q: %v", got, e)
		}
		if code, ok := fields["code"].(string); !ok || code == "" {
			t.Fatalf("%q has no code", got)
		}
		// An errcode is absent, the number 0, or a string of it such as "0", "+0" or "00".
		switch code := fields["errcode"].(type) {
		case nil:
		case float64:
			equal(t, "errcode", code, 0)
		case string:
			equal(t, "errcode without zeros and sign", strings.Trim(code, "0+-"), "")
		default:
			t.Fatalf("%q has errcode %v", got, code)
		}
	})
}

func FuzzDecodeIPs(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, status uint16, body []byte) {
		var got []string
		err := fuzzRead(t, EndpointAPIDomainIP, status, body, func(a answer) (err error) {
			got, err = a.ips()
			return err
		})
		if err != nil {
			return
		}
		for _, s := range got {
			_, errIP := netip.ParseAddr(s)
			_, errNet := netip.ParsePrefix(s)
			if errIP != nil && errNet != nil {
				t.Fatalf("%q is no IP", s)
			}
		}
	})
}

func FuzzErrmsg(f *testing.F) {
	for _, s := range []string{
		"invalid ip 8.149.1.2 ipv6 ::ffff:8.149.1.2, not in whitelist rid: 663ddb36-1f2a3b4c-5d6e7f80",
		"$S", "fuzz-\x00SECRET$S", "ip [2408::1%eth0]:80",
		"rid: 663ddb36-1f2a3b4c-5d6e7f80 rid: 663ddb36-1f2a3b4c-5d6e7f80", "\u202e\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, errmsg string) {
		errmsg = strings.ReplaceAll(errmsg, "$S", fuzzSecret)
		rest, rid := splitRID(newMask(fuzzSecret).line(errmsg))
		checkText(t, rest)
		checkText(t, rid)
		if rid != "" && strings.Trim(rid, "0123456789abcdefABCDEF-") != "" {
			t.Fatalf("rid %q", rid)
		}
		for _, ip := range findIPs(rest) {
			if a, err := netip.ParseAddr(ip); err != nil || a.IsUnspecified() {
				t.Fatalf("%q is no IP", ip)
			}
		}
	})
}

// FuzzMask checks that a mask hides every spelling of any secret.
func FuzzMask(f *testing.F) {
	f.Add("secret", "a$Sb")
	f.Add("s/+=&\"<é>\\ \x00", "$S$S")
	f.Fuzz(func(t *testing.T, secret, text string) {
		if len(secret) < shortestSecret || strings.Contains(masked, secret) {
			return
		}
		for s := range len(spellings(secret)) {
			quoted := spellings(secret)[s]
			got := newMask(secret).line(strings.ReplaceAll(text, "$S", quoted))
			if strings.Contains(strings.ReplaceAll(got, masked, "\x00"), secret) {
				t.Fatalf("%q shows in %q", secret, got)
			}
		}
	})
}
