package check

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

const (
	firstWorker = 2 * time.Second        // wait for the first answer; if no worker runs, NATS replies at once
	nextWorker  = 300 * time.Millisecond // wait for one more answer
	namesShown  = 5
)

// checkWorkers lists the workers that run. It is no fault if there is none.
func (r *run) checkWorkers(ctx context.Context) {
	if !r.getsReplies() || r.denied[r.ping()] {
		what := "this NATS user may not ask whether workers run (" + r.ping().Subject + "); a worker does not need to"
		r.add(OK, Workers, what, "")
		return
	}
	names, err := r.pingWorkers(ctx)
	switch {
	case err != nil:
		r.add(Warn, Workers, "the workers could not be counted: "+err.Error(), "")
	case len(names) == 0:
		r.add(OK, Workers, "no worker runs on "+r.SubjectPrefix+".> yet", "")
	default:
		shown := strings.Join(names[:min(len(names), namesShown)], ", ")
		if more := len(names) - namesShown; more > 0 {
			shown += fmt.Sprintf(" and %d more", more)
		}
		r.add(OK, Workers, fmt.Sprintf("%s on %s.>: %s", count(len(names), "worker"), r.SubjectPrefix, shown), "")
	}
}

// pingWorkers returns the name and version of each worker that answers.
func (r *run) pingWorkers(ctx context.Context) ([]string, error) {
	sub, err := r.nc.SubscribeSync(r.nc.NewInbox())
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := r.nc.PublishRequest(r.ping().Subject, sub.Subject, nil); err != nil {
		return nil, err
	}
	var names []string
	for wait := firstWorker; ; wait = nextWorker {
		waiting, cancel := context.WithTimeout(ctx, wait)
		m, err := sub.NextMsgWithContext(waiting)
		cancel()
		var pong micro.Ping
		if err != nil || isNoResponders(m) { // all workers have answered, or there is none
			slices.Sort(names)
			return names, ctx.Err()
		}
		if json.Unmarshal(m.Data, &pong) == nil {
			names = append(names, fmt.Sprintf("%s (%s)", pong.Metadata["worker"], pong.Version))
		}
	}
}

func isNoResponders(m *nats.Msg) bool { return len(m.Data) == 0 && m.Header.Get("Status") == "503" }
