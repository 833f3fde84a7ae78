package natsconn

import (
	"errors"
	"regexp"
	"strings"

	"github.com/nats-io/nats.go"
)

// Violation is a permissions violation: this user published or subscribed to a subject for which it has no
// permission. The server reports it asynchronously; a request only times out.
type Violation struct {
	Subscribe bool // false: publish
	Subject   string
}

// violation matches the text of the server's error.
var violation = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"]*)"`)

// ViolationOf returns the permissions violation that err is; ok is false for any other error.
func ViolationOf(err error) (v Violation, ok bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return v, false
	}
	m := violation.FindStringSubmatch(err.Error())
	if m == nil {
		return v, false
	}
	return Violation{Subscribe: strings.EqualFold(m[1], "subscription"), Subject: m[2]}, true
}

// InboxAdvice is the advice for a user that may not subscribe to its inboxes.
const InboxAdvice = "set NATS_INBOX_PREFIX=_INBOX_<user>, as in the output of wxkeeper permissions"

// Inbox reports whether the subject is an inbox: with the default prefix of nats.go, or with a prefix of the
// lists that wxkeeper permissions prints.
func (v Violation) Inbox() bool {
	first, _, _ := strings.Cut(v.Subject, ".")
	return v.Subscribe && (first == "_INBOX" || strings.HasPrefix(first, "_INBOX_"))
}
