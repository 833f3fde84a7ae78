package messages

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// HeaderReply is a header that every reply of a worker has. Anything else that arrives on the reply subject of a
// request is not a worker's reply: the acknowledgement of a stream that stores the subject, which JetStream sends
// before the worker has done anything, or the reply of another service.
const HeaderReply = "Wxkeeper-Reply"

// ReplyVersion is the value of [HeaderReply]. Clients check only that the header is there.
const ReplyVersion = "1"

// exchange sends requests and delivers their replies. Other than Request of nats.go it does not take the first message
// for the reply: it waits for the one that a worker has sent. One subscription, made with the first request, receives
// the replies to all requests; it lasts as long as the connection.
type exchange struct {
	nc *nats.Conn

	mu      sync.Mutex // guards what follows
	inbox   string     // with a dot at its end; "": not subscribed yet
	last    uint64
	waiting map[string]*waiter // by the last token of the reply subject
}

// waiter is a request whose reply has not arrived.
type waiter struct {
	reply chan *nats.Msg // has room for the one message that ends the wait
	other string         // the last message that was no worker's; guarded by the mutex of the exchange
}

// OtherReplyError is the error of a request if only messages of others arrived until its context ended. It matches
// [ErrReply] and the error of the context.
type OtherReplyError struct {
	What string // what arrived last, and the likely reason; not its content
	err  error  // of the context
}

func (e *OtherReplyError) Error() string {
	return "no worker has replied, but " + e.What + ": " + e.err.Error()
}

// Is reports whether target is [ErrReply].
func (e *OtherReplyError) Is(target error) bool { return target == ErrReply }

func (e *OtherReplyError) Unwrap() error { return e.err }

// request sends a request and waits for the reply of a worker. Its error is nats.ErrNoResponders, that of ctx, an
// [*OtherReplyError] if something else arrived meanwhile, or another one of nats.go.
func (x *exchange) request(ctx context.Context, subject string, body []byte) (*nats.Msg, error) {
	token, w, err := x.add()
	if err != nil {
		return nil, err
	}
	defer x.remove(token)
	if err := x.nc.PublishRequest(subject, x.inbox+token, body); err != nil {
		return nil, err
	}
	select {
	case m := <-w.reply:
		if isNoResponders(m) {
			return nil, nats.ErrNoResponders
		}
		return m, nil
	case <-ctx.Done():
		if other := x.otherOf(w); other != "" {
			return nil, &OtherReplyError{What: other, err: ctx.Err()}
		}
		return nil, ctx.Err()
	}
}

func (x *exchange) add() (token string, w *waiter, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.inbox == "" {
		inbox := x.nc.NewInbox() + "."
		if _, err := x.nc.Subscribe(inbox+"*", x.receive); err != nil {
			return "", nil, err
		}
		x.inbox, x.waiting = inbox, make(map[string]*waiter)
	}
	x.last++
	token, w = strconv.FormatUint(x.last, 36), &waiter{reply: make(chan *nats.Msg, 1)}
	x.waiting[token] = w
	return token, w, nil
}

func (x *exchange) remove(token string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.waiting, token)
}

func (x *exchange) otherOf(w *waiter) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return w.other
}

// receive handles a message on a reply subject.
func (x *exchange) receive(m *nats.Msg) {
	x.mu.Lock()
	defer x.mu.Unlock()
	w := x.waiting[strings.TrimPrefix(m.Subject, x.inbox)]
	switch {
	case w == nil: // too late, or a second reply
	case len(m.Header[HeaderReply]) == 0 && !isNoResponders(m):
		w.other = describe(m)
	default:
		select {
		case w.reply <- m:
		default: // a second reply
		}
	}
}

func isNoResponders(m *nats.Msg) bool { return len(m.Data) == 0 && m.Header.Get("Status") == "503" }

// describe describes a message that is no worker's reply, without its content, which may be anything.
func describe(m *nats.Msg) string {
	var ack struct {
		Stream string `json:"stream"`
		Seq    uint64 `json:"seq"`
	}
	if json.Unmarshal(m.Data, &ack) == nil && ack.Stream != "" && ack.Seq > 0 {
		return fmt.Sprintf("JetStream has stored the request in the stream %.64q: remove the subjects of wxkeeper from "+
			"its subjects", ack.Stream)
	}
	return fmt.Sprintf("something else, with %d bytes and without the header %s: another service, or a worker of an "+
		"earlier version, receives the requests", len(m.Data), HeaderReply)
}
