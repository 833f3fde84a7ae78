package main

import (
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/messages"
)

// violationError is a subject for which this NATS user has no permission, and advice.
type violationError struct {
	natsconn.Violation
	advice string
}

func (e *violationError) Error() string {
	verb, subject := "publish to ", e.Subject
	if e.Subscribe {
		verb = "subscribe to "
	}
	if e.Inbox() { // as in a list of permissions
		first, _, _ := strings.Cut(subject, ".")
		subject = first + ".>"
	}
	return "this NATS user may not " + verb + subject + ": " + e.advice
}

// onViolation calls handle for each permissions violation. Other asynchronous errors are logged as before.
func onViolation(cfg config.Config, handle func(*violationError)) nats.Option {
	return func(o *nats.Options) error {
		otherwise := o.AsyncErrorCB
		o.AsyncErrorCB = func(nc *nats.Conn, sub *nats.Subscription, err error) {
			if v, ok := natsconn.ViolationOf(err); ok {
				handle(&violationError{v, adviceFor(cfg, v)})
			} else if otherwise != nil {
				otherwise(nc, sub, err)
			}
		}
		return nil
	}
}

func adviceFor(cfg config.Config, v natsconn.Violation) string {
	request, ours := strings.CutPrefix(v.Subject, cfg.SubjectPrefix+".")
	switch {
	case v.Inbox():
		return natsconn.InboxAdvice
	case !v.Subscribe && ours && slices.Contains(messages.Subjects[:], request): // the subject has no AppID at its end
		return "give --appid: this user may only have permission for one account"
	}
	return "wxkeeper permissions operator prints what the verbs need"
}
