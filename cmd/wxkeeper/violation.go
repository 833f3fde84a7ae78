package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/permissions"
	"github.com/wxkeeper/wxkeeper/messages"
)

// violationError is a subject for which this NATS user has no permission, and advice.
type violationError struct {
	natsconn.Use
	advice string
}

func (e *violationError) Error() string {
	return "this NATS user may not " + e.String() + ": " + e.advice
}

// onViolation calls handle for each permissions violation. Other asynchronous errors are logged as before.
func onViolation(cfg config.Config, handle func(*violationError)) nats.Option {
	return func(o *nats.Options) error {
		otherwise := o.AsyncErrorCB
		o.AsyncErrorCB = func(nc *nats.Conn, sub *nats.Subscription, err error) {
			if denied, ok := natsconn.Denied(err); ok {
				handle(&violationError{denied, adviceFor(cfg, denied)})
			} else if otherwise != nil {
				otherwise(nc, sub, err)
			}
		}
		return nil
	}
}

// adviceFor names the list that has the permission.
func adviceFor(cfg config.Config, denied natsconn.Use) string {
	request, ours := strings.CutPrefix(denied.Subject, cfg.SubjectPrefix+".")
	status, report := messages.SubjectStatus, messages.SubjectCredentialRefresh
	list := permissions.Requester
	switch {
	case denied.Inbox():
		return natsconn.InboxAdvice
	case ours && (request == status || strings.HasPrefix(request, status+".") || strings.HasPrefix(request, report+".")):
		list = permissions.Operator
	case !denied.Subscribe && slices.Contains(messages.Subjects[:], request): // a subject without an AppID
		return "give --appid: this user may only have permission for one account"
	}
	return fmt.Sprintf("wxkeeper permissions %s prints what the verb needs", list)
}
