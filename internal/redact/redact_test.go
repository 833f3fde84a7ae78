package redact_test

import (
	"testing"

	"github.com/wxkeeper/wxkeeper/internal/redact"
)

func TestURLsShowNoUserInfo(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                  "",
		"nats://h:4222":                     "nats://h:4222",
		"nats://token@h:4222":               "nats://***@h:4222",
		"nats://u:p@h:4222, tls://u:p@h2":   "nats://***@h:4222,tls://***@h2",
		"u:p@h":                             "***@h",
		"nats://u:p@ss@h":                   "nats://***@h",
		"nats://u:p/q://@h ost":             "nats://***@h ost",
		"nats://u:half,of-it@h:4222":        "nats://***@h:4222", // a comma that should have been encoded
		"nats://h1:4222,h2:4222":            "nats://h1:4222,h2:4222",
		"https://user:pa%2Css@example.com/": "https://***@example.com/",
	} {
		if got := redact.URLs(in); got != want {
			t.Errorf("URLs(%q) = %q, want %q", in, got, want)
		}
	}
}
