package main

import (
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/messages"
)

// refusalError is a subject that this NATS user may not use, and what to do about it.
type refusalError struct {
	natsconn.Refusal
	advice string
}

func (e *refusalError) Error() string {
	verb, subject := "publish to ", e.Subject
	if e.Subscribe {
		verb = "subscribe to "
	}
	if e.Inbox() { // as it stands in a list of permissions
		first, _, _ := strings.Cut(subject, ".")
		subject = first + ".>"
	}
	return "this NATS user may not " + verb + subject + ": " + e.advice
}

// onRefusal tells of each subject that the server refuses. What else NATS tells asynchronously is logged as before.
func onRefusal(cfg config.Config, tell func(*refusalError)) nats.Option {
	return func(o *nats.Options) error {
		otherwise := o.AsyncErrorCB
		o.AsyncErrorCB = func(nc *nats.Conn, sub *nats.Subscription, err error) {
			if r, ok := natsconn.RefusalOf(err); ok {
				tell(&refusalError{r, advise(cfg, r)})
			} else if otherwise != nil {
				otherwise(nc, sub, err)
			}
		}
		return nil
	}
}

func advise(cfg config.Config, r natsconn.Refusal) string {
	request, ours := strings.CutPrefix(r.Subject, cfg.SubjectPrefix+".")
	switch {
	case r.Inbox():
		return natsconn.InboxAdvice
	case !r.Subscribe && ours && slices.Contains(messages.Subjects[:], request): // with no account at its end
		return "give --appid: it may be allowed to ask for one account alone"
	}
	return "wxkeeper permissions operator prints what the verbs need"
}
