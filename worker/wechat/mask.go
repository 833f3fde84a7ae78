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
// sometimes quote the request in their texts. What a text quotes of an answer is removed elsewhere: see describe and
// withoutAnswer.
//
// A mask belongs to one call and is not safe for concurrent use.
type mask struct {
	secrets []string
	forms   []string // all spellings of the secrets; computed when first needed, because most calls need none
}

func newMask(secrets ...string) *mask { return &mask{secrets: secrets} }

// newMask returns a mask that also hides the password of the proxy.
func (c *Client) newMask(secrets ...string) *mask {
	m := newMask(secrets...)
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
