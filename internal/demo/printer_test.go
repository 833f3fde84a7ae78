package demo

import (
	"errors"
	"strings"
	"testing"
	"unicode"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// In the demo everybody on the machine may send events and answer requests.
func TestNoEventManipulatesTheTerminal(t *testing.T) {
	t.Parallel()
	const bad = "a\x1b]0;title\x07\x1b[2J\nFORGED line\rover\u202e\u2066\u009b2J\u200b\x7f\u3164\U000e0041z"
	out := newScreen()
	s := newStory(Config{Out: out}, wechattest.New(wechattest.Config{}))
	for _, event := range []string{
		messages.EventConflict, messages.EventFailed, messages.EventRecovered, messages.EventExpired,
	} {
		s.onEvent(messages.Event{Event: event, AppID: bad, Kind: bad, Message: bad, Advice: bad})
	}
	s.printRefusal(bad, &messages.Error{Symbol: bad, Message: bad})
	s.printRefusal(bad, errors.New(bad))
	if got := strings.Count(out.String(), "FORGED"); got < 10 {
		t.Errorf("only %d texts were printed", got)
	}
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "FORGED") || strings.ContainsFunc(line, func(r rune) bool {
			return unicode.In(r, unicode.C, unicode.Other_Default_Ignorable_Code_Point)
		}) {
			t.Errorf("this line is not safe: %q", line)
		}
	}
}
