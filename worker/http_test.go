package worker

import (
	"strings"
	"testing"
	"unicode"

	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// The page shows WeChat's words, and what other workers have written.
func TestNoTextManipulatesTheReaderOfThePage(t *testing.T) {
	t.Parallel()
	const bad = "w\x1b]0;title\x07\x1b[2J\nFORGED\tline\rover\u202e\u2066\u009b2J\u200b\x7f\u3164\U000e0041\xffz"
	f := newFixture(t, wechattest.Config{})
	f.wechat.Inject(wechattest.Fault{Endpoint: "stable_token", Errcode: 40125, Errmsg: bad})
	w := f.worker(func(c *Config) { c.Name = bad })
	var body string
	f.eventually("the page shows the error", func() bool {
		_, body = w.page("/")
		return strings.Contains(body, "40125")
	})
	for line := range strings.Lines(body) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "FORGED") || strings.ContainsFunc(line, func(r rune) bool {
			return unicode.In(r, unicode.C, unicode.Other_Default_Ignorable_Code_Point)
		}) {
			t.Errorf("this line is not safe: %q", line)
		}
	}
	if !strings.HasPrefix(body, `worker w\x1b]0;title\x07\x1b[2J\nFORGED`) {
		t.Errorf("the name of the worker is not shown: %.80q", body)
	}
}

func TestPageShowsNoTimeForWhatNeverWas(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.wechat.Inject(wechattest.Fault{Endpoint: "stable_token", Errcode: 40125})
	w := f.worker(nil)
	var body string
	f.eventually("the page shows the error", func() bool {
		_, body = w.page("/")
		return strings.Contains(body, "40125")
	})
	if strings.Contains(body, "0001-01-01") || !strings.Contains(body, ", 1 account, ") {
		t.Errorf("the page is\n%s", body)
	}
}
