package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/wxkeeper/wxkeeper/messages"
)

// introduce says what runs where, and what can be tried.
func (s *story) introduce(h *house) {
	var b strings.Builder
	fmt.Fprintf(&b, `wxkeeper demo: a simulated WeChat, NATS and one worker, all in this process. Ctrl-C ends it.

  WeChat    %s, simulated: a token lives for %s, a ticket for %s
  NATS      %s, data in %s (removed at the end)
  accounts  %s (stable_token, with both tickets), %s (token)
`, h.api, span(s.cfg.Life), span(ticketLives*s.cfg.Life), h.nats, h.dir, stableID, classicID)
	if h.taken {
		fmt.Fprintf(&b, "\n%s is taken by another process: NATS listens on a free port instead.\n", s.cfg.Listen)
	}
	b.WriteString("\nTry in a second terminal:\n\n")
	for _, c := range commands(h.nats, h.control, self()) {
		b.WriteString(strings.TrimRight("  "+c, " ") + "\n")
	}
	b.WriteString("\nWhat happens here:\n\n")
	s.print(b.String())
}

// commands are those to try, ready to be copied: the nats command, the same with wxkeeper, and a fault for WeChat.
func commands(natsURL, controlURL, wxkeeper string) []string {
	env := "NATS_URL=" + natsURL + " "
	resolve := messages.DefaultPrefix + "." + messages.SubjectCodeResolve
	return []string{
		env + fmt.Sprintf(`nats req %s '{"appid":"%s","openid":"%s","code_ticket":"%s"}'`, resolve, stableID, sampleOpenID, sampleCodeTicket),
		env + "nats kv watch " + messages.DefaultBucket + " '*.*'",
		env + "nats kv get " + messages.DefaultBucket + " " + messages.Key(stableID, messages.AccessToken) + " --raw",
		env + "nats micro stats " + messages.DefaultPrefix,
		"",
		env + wxkeeper + " status",
		env + wxkeeper + fmt.Sprintf(" resolve --appid %s %s %s", stableID, sampleOpenID, sampleCodeTicket),
		env + wxkeeper + " watch",
		"",
		fmt.Sprintf(`curl -d '{"appid":"%s","endpoint":"token","errcode":-1,"times":2}' %s/faults`, classicID, controlURL),
	}
}

// self is how this program was called, so that it can be called again.
func self() string {
	if exe, err := os.Executable(); err == nil && strings.Contains(filepath.ToSlash(exe), "/go-build") {
		return "go run ./cmd/wxkeeper" // which builds into a directory of that name
	}
	if name := os.Args[0]; strings.HasPrefix(filepath.Base(name), "wxkeeper") && !strings.ContainsAny(name, " '\"") {
		return name
	}
	return "wxkeeper"
}
