package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/safetext"
	"github.com/wxkeeper/wxkeeper/messages"
)

// introduce prints what runs at which address, and what a user can try.
func (s *story) introduce(stack *stack) {
	var b strings.Builder
	safetext.Fprintf(&b, `wxkeeper demo: a simulated WeChat, a NATS server and one worker in this process. Ctrl-C ends it.

  WeChat    %s, simulated: a token lives for %s, a ticket for %s
  NATS      %s, data in %s (removed at the end)
  page      %s/ shows the state of the credentials, %[6]s/metrics the metrics
  accounts  %s (interface stable_token, both tickets), %s (interface token)
`, stack.api, span(s.cfg.Life), span(ticketLives*s.cfg.Life), stack.nats, stack.dir, stack.page, stableID, classicID)
	if stack.taken {
		safetext.Fprintf(&b, "\n%s is taken by another process: NATS uses a free port instead.\n", s.cfg.Listen)
	}
	b.WriteString("\nTry in a second terminal:\n\n")
	for _, c := range commands(stack.nats, stack.control, self()) {
		b.WriteString(strings.TrimRight("  "+c, " ") + "\n")
	}
	b.WriteString("\nWhat happens:\n\n")
	s.print(b.String())
}

// commands returns commands to copy: with nats, with wxkeeper, and one that injects a fault into the simulated
// WeChat.
func commands(natsURL, controlURL, wxkeeper string) []string {
	env := "NATS_URL=" + natsURL + " "
	resolve := messages.DefaultPrefix + "." + messages.SubjectCodeResolve
	return []string{
		env + fmt.Sprintf(`nats req %s '{"appid":"%s","openid":"%s","code_ticket":"%s"}'`,
			resolve, stableID, sampleOpenID, sampleCodeTicket),
		env + "nats sub '" + messages.PublishedSubject(messages.DefaultPrefix, "*", "*") + "'",
		env + fmt.Sprintf("nats req %s.%s.%s '{}'", messages.DefaultPrefix, messages.SubjectCredentialGet, stableID),
		env + "nats micro stats " + messages.DefaultPrefix,
		"",
		env + wxkeeper + " status",
		env + wxkeeper + fmt.Sprintf(" resolve --appid %s %s %s", stableID, sampleOpenID, sampleCodeTicket),
		env + wxkeeper + " watch",
		"",
		fmt.Sprintf(`curl -d '{"appid":"%s","endpoint":"token","errcode":-1,"times":2}' %s/faults`, classicID, controlURL),
	}
}

// self is the command that runs this program again.
func self() string {
	if exe, err := os.Executable(); err == nil && strings.Contains(filepath.ToSlash(exe), "/go-build") {
		return "go run ./cmd/wxkeeper" // go run builds into a directory of that name
	}
	if name := os.Args[0]; strings.HasPrefix(filepath.Base(name), "wxkeeper") && !strings.ContainsAny(name, " '\"") {
		return name
	}
	return "wxkeeper"
}
