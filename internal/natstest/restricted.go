package natstest

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// StartRestricted starts a server with two users: one may do everything, the other may publish and subscribe
// only to the given subjects, and receive replies.
func StartRestricted(tb testing.TB, publish, subscribe []string) (srv *Server, unrestricted, restricted nats.Option) {
	tb.Helper()
	const password = "only-for-this-test"
	permissions := &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publish},
		Subscribe: &server.SubjectPermission{Allow: append([]string{"_INBOX.>"}, subscribe...)},
	}
	srv = Start(tb, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "unrestricted", Password: password},
			{Username: "restricted", Password: password, Permissions: permissions},
		}
	})
	return srv, nats.UserInfo("unrestricted", password), nats.UserInfo("restricted", password)
}
