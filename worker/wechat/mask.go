package wechat

import (
	"bytes"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	masked = "[masked]"
	// shortestPart is the shortest beginning of a secret that is masked where a text breaks off inside it.
	shortestPart = 4
	// shortestSecret is the shortest secret that is masked. WeChat's own have 28 characters and more; an openid "o" of a
	// caller who tries things out would mask every o of WeChat's words.
	shortestSecret = 6
	// maskWindow bounds the work of masking a text of which some 200 bytes are shown.
	maskWindow = 8192
)

// A mask hides the secrets of one request from texts: from what WeChat, a proxy or net/http say about that request. All
// of them quote at times what was sent.
//
// A mask belongs to one call and is not safe for concurrent use.
type mask struct {
	issues  bool // the answer may carry a new credential, which nobody knows yet
	secrets []string
	forms   []string // the ways in which the secrets may be written; made when first needed, most calls need none
}

func newMask(e Endpoint, secrets ...string) *mask {
	return &mask{issues: e.issues(), secrets: secrets}
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

// spellings are the ways in which s may be quoted: plain, in a URL, in JSON, in Go's %q (net/http), %q of the others, and
// its longer words.
func spellings(s string) []string {
	forms := []string{s, printable(s)}
	for _, esc := range []string{url.QueryEscape(s), url.PathEscape(s)} {
		forms = append(forms, esc, lowerHex.ReplaceAllStringFunc(esc, strings.ToLower))
	}
	for _, html := range []bool{true, false} {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(html)
		if enc.Encode(s) == nil {
			in := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(b.String()), `"`), `"`)
			forms = append(forms, in, strings.ReplaceAll(in, "/", `\/`)) // PHP escapes the slash
		}
	}
	for _, f := range slices.Clone(forms) {
		q := strconv.Quote(f)
		forms = append(forms, q[1:len(q)-1])
	}
	// Escapes can be nested without end (an openid is whatever a caller sends), but none changes these runs.
	return append(forms, run.FindAllString(s, -1)...)
}

var (
	lowerHex = regexp.MustCompile(`%[0-9A-F]{2}`)
	run      = regexp.MustCompile(`[A-Za-z0-9_-]{4,}`)
)

// hide replaces every occurrence of a secret, also where two overlap and where the text breaks off inside one.
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
	done := 0 // text[:done] is dealt with
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

// line is text as one safe line. It hides before and after it tidies, because removing a control character can join the
// halves of a secret. Who shortens the line does it afterwards, because half a secret would not be found.
func (m *mask) line(text string) string {
	return m.hide(printable(m.hide(text[:min(len(text), maskWindow)])))
}

// quote is line for bytes of a server that may be an answer with a new credential in it, whole or broken.
func (m *mask) quote(text string) string {
	text = m.line(text)
	if m.issues {
		text = longRun.ReplaceAllString(hideIssued(text), masked)
	}
	return text
}

var (
	issuedKey = regexp.MustCompile(`(?i)access_token|ticket`)
	// issuedValue is a sound JSON member after its key: the value alone is hidden. In all else the rest is.
	issuedValue = regexp.MustCompile(`^"\s*:\s*"((?:[^"\\]|\\.)*)"\s*(?:[,}\]]|$)`)
	longRun     = regexp.MustCompile(`[A-Za-z0-9_-]{16,}`)
)

// hideIssued hides what follows an access_token or ticket key.
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
