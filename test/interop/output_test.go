//go:build interop

package interop

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/messages"
)

// The text of an error comes from elsewhere. The end of standard input is not a failure.
func TestExamplesEscapeWhatTheyPrintAndEndQuietly(t *testing.T) {
	t.Parallel()
	for name, command := range languages(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.recreateBucket()
			f.publish(1)
			f.answerFromBucket()
			f.answer("wechat.code.resolve."+appid, func(*nats.Msg) any {
				return messages.Errorf("of_a_later_version", "\x1b[2J\u202e店\nforged")
			})
			p := start(t, command, f.args("--appid", appid)...)
			p.expectAnywhere("access_token .*")
			p.ask(sample, `of_a_later_version: unknown error \(0\): .*店.*forged`)
			before := p.String()
			p.stop()
			if after := p.String(); after != before {
				t.Errorf("at the end it prints %q", strings.TrimPrefix(after, before))
			}
			if strings.ContainsAny(p.String(), "\x1b\u202e") {
				t.Errorf("it prints %q", p)
			}
		})
	}
}
