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
	firstWorker = 2 * time.Second        // how long to wait for the first answer; where nobody is there, NATS says so at once
	nextWorker  = 300 * time.Millisecond // and for one more
	namesShown  = 5
)

// workers tells how many workers run. It is no fault that none does.
func (r *run) workers(ctx context.Context) {
	if !r.hears() || r.denied[r.ping()] {
		r.say(OK, Workers, "this NATS user may not ask whether workers run ("+r.ping().subject+"), and need not", "")
		return
	}
	names, err := r.pinged(ctx)
	switch {
	case err != nil:
		r.say(Warn, Workers, "the workers could not be counted: "+err.Error(), "")
	case len(names) == 0:
		r.say(OK, Workers, "no worker runs on "+r.SubjectPrefix+".> yet", "")
	default:
		shown := strings.Join(names[:min(len(names), namesShown)], ", ")
		if more := len(names) - namesShown; more > 0 {
			shown += fmt.Sprintf(" and %d more", more)
		}
		r.say(OK, Workers, fmt.Sprintf("%s on %s.>: %s", count(len(names), "worker"), r.SubjectPrefix, shown), "")
	}
}

// pinged are the workers that answer, by name and version.
func (r *run) pinged(ctx context.Context) ([]string, error) {
	sub, err := r.nc.SubscribeSync(r.nc.NewInbox())
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := r.nc.PublishRequest(r.ping().subject, sub.Subject, nil); err != nil {
		return nil, err
	}
	var names []string
	for wait := firstWorker; ; wait = nextWorker {
		waiting, cancel := context.WithTimeout(ctx, wait)
		m, err := sub.NextMsgWithContext(waiting)
		cancel()
		var pong micro.Ping
		if err != nil || isNoResponders(m) { // they have all answered, or nobody is there
			slices.Sort(names)
			return names, ctx.Err()
		}
		if json.Unmarshal(m.Data, &pong) == nil {
			names = append(names, fmt.Sprintf("%s (%s)", pong.Metadata["worker"], pong.Version))
		}
	}
}

func isNoResponders(m *nats.Msg) bool { return len(m.Data) == 0 && m.Header.Get("Status") == "503" }
