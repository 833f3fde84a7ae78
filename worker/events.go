package worker

import (
	"encoding/json"
	"log/slog"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
)

// events publishes the events of this worker (docs/architecture.md#subjects).
type events struct {
	nats   publisher
	prefix string
	worker string
	now    func() time.Time
	log    *slog.Logger
}

// publisher is what events needs of a *nats.Conn.
type publisher interface {
	Publish(subject string, data []byte) error
}

// publish publishes an event of an account, and returns whether it was sent. It is lost if NATS is not available: the
// ledger and the status have the same facts.
func (e *events) publish(a *Account, kind messages.Kind, name string, event messages.Event) bool {
	event.Event, event.AppID, event.Name, event.Kind, event.Worker, event.Time = name, a.AppID, a.Name, kind, e.worker,
		e.now().UTC()
	body, err := json.Marshal(event)
	if err == nil {
		err = e.nats.Publish(messages.EventSubject(e.prefix, a.AppID, kind, name), body)
	}
	if err != nil {
		e.log.Debug("event not published", "event", name, "error", err)
	}
	return err == nil
}
