package wechat

import (
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	masked = "[masked]"
	// shortestPart is the shortest beginning of a secret that is masked at the end of a text that is cut off.
	shortestPart = 4
	// shortestSecret is the shortest secret that is masked. WeChat's secrets have 28 characters and more. A
	// test openid such as "o" would mask every o in WeChat's words.
	shortestSecret = 6
	// maskWindow limits how much of a text is masked. About 200 bytes of it are shown.
	maskWindow = 8192
)

// A mask removes the secrets of one request from texts about that request. WeChat, proxies and net/http
// sometimes quote the request in their texts.
//
// A mask belongs to one call and is not safe for concurrent use.
type mask struct {
	issues  bool // the answer may carry a new credential, whose value is not known yet
	secrets []string
	forms   []string // all spellings of the secrets; computed when first needed, because most calls need none
}

func newMask(e Endpoint, secrets ...string) *mask {
	return &mask{issues: e.issues(), secrets: secrets}
}

// newMask returns a mask that also hides the password of the proxy.
func (c *Client) newMask(e Endpoint, secrets ...string) *mask {
	m := newMask(e, secrets...)
	m.forms = slices.Clip(c.proxyForms)
	return m
}

func (m *mask) makeForms() {
	for _, s := range m.secrets {
		if len(s) < shortestSecret {
			continue
		}
		for _, form := range spellings(s) {
			if form != "" && !slices.Contains(m.forms, form) {
				m.forms = append(m.forms, form)
			}
		}
	}
	m.secrets = nil
}

// spellings returns the forms in which a text may quote s: its escapes, and the longer words of s. Escapes can be
// nested without limit, because an openid is arbitrary input. No escape changes these words.
func spellings(s string) []string { return append(escapes(s), run.FindAllString(s, -1)...) }

// escapes returns s plain, in a URL, in JSON, and each of them in Go's %q (as net/http does).
func escapes(s string) []string {
	forms := []string{s, printable(s)}
	for _, esc := range []string{url.QueryEscape(s), url.PathEscape(s)} {
		forms = append(forms, esc, lowerHex.ReplaceAllStringFunc(esc, strings.ToLower))
	}
	withHTML, _ := json.Marshal(s) // a string always encodes
	for _, quoted := range [][]byte{withHTML, encode(s)} {
		in := string(quoted[1 : len(quoted)-1])
		forms = append(forms, in, strings.ReplaceAll(in, "/", `\/`)) // PHP escapes the slash
	}
	for _, f := range slices.Clone(forms) {
		q := strconv.Quote(f)
		forms = append(forms, q[1:len(q)-1])
	}
	return forms
}

var (
	lowerHex = regexp.MustCompile(`%[0-9A-F]{2}`)
	run      = regexp.MustCompile(`[A-Za-z0-9_-]{4,}`)
)

// hide replaces every occurrence of a secret, also of overlapping ones, and of one that is cut off at the end
// of text.
func (m *mask) hide(text string) string {
	m.makeForms()
	var spans [][2]int
	for _, f := range m.forms {
		for from := 0; ; {
			i := strings.Index(text[from:], f)
			if i < 0 {
				break
			}
			spans = append(spans, [2]int{from + i, from + i + len(f)})
			from += i + 1
		}
		for n := min(len(f)-1, len(text)); n >= shortestPart; n-- {
			if strings.HasSuffix(text, f[:n]) {
				spans = append(spans, [2]int{len(text) - n, len(text)})
				break
			}
		}
	}
	return replaceSpans(text, spans)
}

func replaceSpans(text string, spans [][2]int) string {
	if len(spans) == 0 {
		return text
	}
	slices.SortFunc(spans, func(a, b [2]int) int { return a[0] - b[0] })
	var out strings.Builder
	done := 0 // text[:done] is copied or masked
	for _, s := range spans {
		if s[0] >= done {
			out.WriteString(text[done:s[0]])
			out.WriteString(masked)
		}
		done = max(done, s[1])
	}
	out.WriteString(text[done:])
	return out.String()
}

// line returns text as one line without secrets. It hides secrets before and after printable, because
// removing a control character can join two halves of a secret. Shorten a line only afterwards: hide does not
// find half a secret.
func (m *mask) line(text string) string {
	return m.hide(printable(m.hide(text[:min(len(text), maskWindow)])))
}

// quote returns line(text) and hides new credentials too. It is for bytes of a server, which may be an
// answer, complete or broken, that carries a new credential.
func (m *mask) quote(text string) string {
	text = m.line(text)
	if m.issues {
		text = longRun.ReplaceAllString(hideIssued(text), masked)
	}
	return text
}

var (
	issuedKey = regexp.MustCompile(`(?i)access_token|ticket`)
	// issuedValue matches the rest of a valid JSON member after its key: only the value is hidden. If it does
	// not match, all text after the key is hidden.
	issuedValue = regexp.MustCompile(`^"\s*:\s*"((?:[^"\\]|\\.)*)"\s*(?:[,}\]]|$)`)
	longRun     = regexp.MustCompile(`[A-Za-z0-9_-]{16,}`)
)

// hideIssued hides the values of access_token and ticket members.
func hideIssued(text string) string {
	var out strings.Builder
	for {
		key := issuedKey.FindStringIndex(text)
		if key == nil {
			out.WriteString(text)
			return out.String()
		}
		out.WriteString(text[:key[1]])
		text = text[key[1]:]
		value := issuedValue.FindStringSubmatchIndex(text)
		if value == nil {
			if text != "" {
				out.WriteString(masked)
			}
			return out.String()
		}
		out.WriteString(text[:value[2]])
		out.WriteString(masked)
		text = text[value[3]:]
	}
}
