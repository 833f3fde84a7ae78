package natsconn

import (
	"errors"
	"regexp"
	"strings"

	"github.com/nats-io/nats.go"
)

// Refusal is one use of a subject that the server does not allow this user. Whoever asked hears nothing of it: the server
// says it aside.
type Refusal struct {
	Subscribe bool // otherwise: publish
	Subject   string
}

// refusal is how the server names the subject.
var refusal = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"]*)"`)

// RefusalOf is what a permission violation of the server is about; ok is false for any other error.
func RefusalOf(err error) (r Refusal, ok bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return r, false
	}
	m := refusal.FindStringSubmatch(err.Error())
	if m == nil {
		return r, false
	}
	return Refusal{Subscribe: strings.EqualFold(m[1], "subscription"), Subject: m[2]}, true
}

// InboxAdvice is for a user that may not subscribe to its inboxes.
const InboxAdvice = "set NATS_INBOX_PREFIX=_INBOX_<user>, as the list that wxkeeper permissions printed says"

// Inbox tells whether it was an inbox that was refused: by its default prefix, or one that our lists give.
func (r Refusal) Inbox() bool {
	first, _, _ := strings.Cut(r.Subject, ".")
	return r.Subscribe && (first == "_INBOX" || strings.HasPrefix(first, "_INBOX_"))
}
