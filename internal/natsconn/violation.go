package natsconn

import (
	"errors"
	"regexp"
	"strings"

	"github.com/nats-io/nats.go"
)

// Use is a use of a subject. A permission to publish to a subject does not allow to subscribe to it.
type Use struct {
	Subscribe bool // false: publish
	Subject   string
}

// violation matches the text of the server's error.
var violation = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"]*)"`)

// Denied returns the use that the server denied if err is a permissions violation; ok is false for any other error.
// The server sends such an error asynchronously; a request only times out.
func Denied(err error) (u Use, ok bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return u, false
	}
	m := violation.FindStringSubmatch(err.Error())
	if m == nil {
		return u, false
	}
	return Use{Subscribe: strings.EqualFold(m[1], "subscription"), Subject: m[2]}, true
}

// InboxAdvice is the advice for a user that may not subscribe to its inboxes.
const InboxAdvice = "set NATS_INBOX_PREFIX=_INBOX_<user>, as in the output of wxkeeper permissions"

// Inbox reports whether the subject is an inbox: with the default prefix of nats.go, or with a prefix of the
// lists that wxkeeper permissions prints.
func (u Use) Inbox() bool {
	first, _, _ := strings.Cut(u.Subject, ".")
	return u.Subscribe && (first == "_INBOX" || strings.HasPrefix(first, "_INBOX_"))
}

// String returns "publish to" or "subscribe to", and the subject; of an inbox, the subject in a list of permissions.
func (u Use) String() string {
	if first, _, _ := strings.Cut(u.Subject, "."); u.Inbox() {
		u.Subject = first + ".>"
	}
	if u.Subscribe {
		return "subscribe to " + u.Subject
	}
	return "publish to " + u.Subject
}
