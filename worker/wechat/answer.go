package wechat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxValue     = 2048                // bytes of a credential; WeChat asks for room for 512 (docs/wechat-api.md#token)
	maxExpiresIn = 30 * 24 * time.Hour // a longer expires_in is a mistake; today it is 7200 s
)

// An answer is the part of a body that all interfaces have in common. The errors of this file describe a
// defect and its position; they quote at most one punctuation character of the body, and the number of expires_in.
type answer struct {
	raw     []byte // the JSON object, without byte order mark, surrounding white space and raw control characters
	fields  fields
	errcode int
	errmsg  string
}

var byteOrderMark = []byte("\xEF\xBB\xBF")

// parse reads one JSON object. It repairs nothing by guess. The page of tickettocode shows a sample that lacks a comma
// (docs/wechat-api.md#tickettocode), but a parser that guesses the missing comma also guesses the meaning of
// a code. Raw control characters in strings are escaped: that guesses nothing (docs/wechat-api.md#answers).
func parse(body []byte) (answer, error) {
	raw := bytes.TrimPrefix(body, byteOrderMark)
	raw = bytes.Trim(raw, " \t\r\n")
	if len(raw) == 0 {
		return answer{}, errors.New("it is empty")
	}
	at := func(offset int) string {
		return fmt.Sprintf("at offset %d of %d bytes", bytes.Index(body, raw)+offset, len(body))
	}
	a := answer{raw: raw}
	if !json.Valid(raw) {
		blanked, escaped := escapeControls(raw)
		if err := json.Unmarshal(blanked, new(any)); err != nil {
			return answer{}, notJSON(blanked, err, at)
		}
		a.raw = escaped
	}
	if raw[0] != '{' {
		return answer{}, errors.New("not a JSON object")
	}
	members(a.raw, a.fields.set)
	if err := a.readErrcode(); err != nil {
		return answer{}, err
	}
	if a.errcode == 0 && !utf8.Valid(raw) {
		return answer{}, fmt.Errorf("not UTF-8 %s", at(invalidUTF8(raw)))
	}
	return a, nil
}

// notJSON describes why text is not JSON. err is the error of encoding/json for text, which quotes a character: a
// letter or a digit may be a part of a code, so only other characters are named. at words an offset.
func notJSON(text []byte, err error, at func(offset int) string) error {
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	if !ok {
		return errors.New("not JSON")
	}
	if syntax.Error() == endsEarly {
		return fmt.Errorf("not JSON %s: %s", at(int(syntax.Offset)), endsEarly)
	}
	offset := int(syntax.Offset) - 1 // Offset counts the bytes read, so the wrong byte is the last of them
	if offset < 0 || offset >= len(text) {
		return errors.New("not JSON")
	}
	what := syntax.Error()
	if c := text[offset]; c <= ' ' || c >= 0x7f || isAlphanumeric(c) {
		what = quotedCharacter.ReplaceAllString(what, "invalid character ")
	}
	return fmt.Errorf("not JSON %s: %s", at(offset), what)
}

// quotedCharacter finds the character in an error of encoding/json.
var quotedCharacter = regexp.MustCompile(`^invalid character '[^']*' `)

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// endsEarly is the error text of encoding/json for a truncated text.
const endsEarly = "unexpected end of JSON input"

// invalidUTF8 returns the offset of the first byte that is not UTF-8.
func invalidUTF8(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(b)
}

// integer reads a whole number, also one in a string: relays and some interfaces of WeChat send "7200" for 7200
// (docs/wechat-api.md#answers). The string must be the number and nothing else.
func integer(raw json.RawMessage, bits int) (int64, error) {
	digits := string(raw)
	if s, ok := text(raw); ok {
		digits = s
	}
	return strconv.ParseInt(digits, 10, bits)
}

// readErrcode reads errcode and errmsg. A success may lack an errcode, which reads as 0 (docs/wechat-api.md#answers).
func (a *answer) readErrcode() error {
	raw := a.fields.get("errcode")
	if raw == nil {
		return nil
	}
	n, err := integer(raw, 32)
	if err != nil {
		return errors.New("errcode is not an integer")
	}
	a.errcode = int(n)
	a.errmsg, _ = text(a.fields.get("errmsg"))
	return nil
}

// text returns the value of a JSON string; ok is false if raw is not a string.
func text(raw json.RawMessage) (s string, ok bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	return s, json.Unmarshal(raw, &s) == nil
}

// textField returns the field called name, which must be a non-empty string.
func (a *answer) textField(name string) (string, error) {
	raw := a.fields.get(name)
	if raw == nil {
		return "", fmt.Errorf("it has no %s", name)
	}
	s, ok := text(raw)
	switch {
	case !ok:
		return "", fmt.Errorf("%s is not a string", name)
	case s == "":
		return "", fmt.Errorf("%s is empty", name)
	}
	return s, nil
}

// issued reads a credential: its value from the field called name, its life in seconds from expires_in
// (docs/wechat-api.md#token, docs/wechat-api.md#getticket).
func (a *answer) issued(name string) (Issued, error) {
	value, err := a.textField(name)
	if err != nil {
		return Issued{}, err
	}
	if len(value) > maxValue {
		return Issued{}, fmt.Errorf("%s has %d bytes, at most %d are plausible", name, len(value), maxValue)
	}
	if i := strings.IndexFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }); i >= 0 {
		return Issued{}, fmt.Errorf("%s has an unprintable byte at %d", name, i)
	}
	raw := a.fields.get("expires_in")
	if raw == nil {
		return Issued{}, errors.New("it has no expires_in")
	}
	seconds, err := integer(raw, 64)
	switch {
	case err != nil:
		return Issued{}, errors.New("expires_in is not an integer")
	case seconds <= 0:
		return Issued{}, fmt.Errorf("expires_in is %d", seconds)
	case seconds > int64(maxExpiresIn/time.Second):
		return Issued{}, fmt.Errorf("expires_in is %d, at most %d is plausible", seconds,
			int64(maxExpiresIn/time.Second))
	}
	return Issued{Value: value, ExpiresIn: time.Duration(seconds) * time.Second}, nil
}

// code returns the whole body of tickettocode if it has a code. A code is a string whose leading zeros count
// (docs/wechat-api.md#tickettocode), so a number is refused.
func (a *answer) code() (json.RawMessage, error) {
	if _, err := a.textField("code"); err != nil {
		return nil, err
	}
	return json.RawMessage(a.raw), nil
}

// ips returns the ip_list of get_api_domain_ip. The sister interface getcallbackip lists networks among the
// addresses, so both are accepted (docs/wechat-api.md#get_api_domain_ip).
func (a *answer) ips() ([]string, error) {
	raw := a.fields.get("ip_list")
	if raw == nil {
		return nil, errors.New("it has no ip_list")
	}
	var list []*string
	if err := json.Unmarshal(raw, &list); err != nil || list == nil {
		return nil, errors.New("ip_list is not an array of strings")
	}
	ips := make([]string, 0, len(list))
	for i, s := range list {
		if s == nil {
			return nil, errors.New("ip_list is not an array of strings")
		}
		if _, err := netip.ParseAddr(*s); err != nil {
			if _, err := netip.ParsePrefix(*s); err != nil {
				return nil, fmt.Errorf("ip_list has no IP at index %d", i)
			}
		}
		ips = append(ips, *s)
	}
	return ips, nil
}
