package worker

import (
	"strings"

	"github.com/nats-io/nats.go/micro"
)

// outcomeDropped is the outcome of a request that got no reply.
const outcomeDropped = "dropped"

// answerable drops requests whose reply nobody waits for, and those whose reply would go where their sender may
// not publish. NATS asks for no permission for the subject of a reply: who may do no more than resolve a code
// could have this worker write over a lease, a ledger or a credential, call an API of JetStream, or ask another
// worker in its name.
func (s *service) answerable(subject string, handle micro.HandlerFunc) micro.HandlerFunc {
	return func(req micro.Request) {
		switch to := req.Reply(); {
		case to == "":
		case strings.HasPrefix(to, "$"), strings.HasPrefix(to, s.prefix+"."):
			s.metrics.requests.WithLabelValues(strings.TrimSuffix(subject, ofAccount), outcomeDropped).Inc()
			s.log.Debug("a request was dropped: its reply would go into a bucket, or to a service", "subject", subject)
		default:
			handle(req)
		}
	}
}
