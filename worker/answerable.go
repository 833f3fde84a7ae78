package worker

import (
	"strings"

	"github.com/nats-io/nats.go/micro"
)

// outcomeDropped is the outcome of a request that got no reply.
const outcomeDropped = "dropped"

// answerable drops requests without a reply subject, and requests whose reply would go into a bucket or to a
// service. NATS checks no permission of the requester for the reply subject. Without this check, a user that may
// only resolve codes could make this worker overwrite a lease, a ledger entry or a record, call an API of
// JetStream, or send a request to another worker.
func (s *service) answerable(subject string, handle micro.HandlerFunc) micro.HandlerFunc {
	return func(req micro.Request) {
		switch to := req.Reply(); {
		case to == "":
		case strings.HasPrefix(to, "$"), strings.HasPrefix(to, s.prefix+"."):
			s.metrics.requests.WithLabelValues(strings.TrimSuffix(subject, ofAccount), outcomeDropped).Inc()
			s.log.Debug("request dropped: its reply would go into a bucket or to a service", "subject", subject)
		default:
			handle(req)
		}
	}
}
