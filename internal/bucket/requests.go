package bucket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/messages"
)

// Requests reads records by credential.get: a worker answers from its memory. The user needs no permission for
// JetStream.
func Requests(nc *nats.Conn, prefix string) Records {
	client := messages.NewClient(nc, prefix)
	client.FailFast = true // a Poll repeats its reads itself
	return requests{client, prefix + "." + messages.SubjectCredentialGet + "."}
}

type requests struct {
	client  *messages.Client
	subject string // before the AppID
}

// maxMessage is how much of the message of an error is shown, in bytes.
const maxMessage = 300

var errNoWorker = errors.New("no worker listens")

func (r requests) asks() []string { return []string{r.subject} }

func (r requests) read(ctx context.Context, n Name) (answer, error) {
	c, err := r.client.GetCredential(ctx, messages.GetCredentialRequest{AppID: n.AppID, Kind: n.Kind})
	refusal, refused := errors.AsType[*messages.Error](err)
	switch {
	case errors.Is(err, messages.ErrNoCredential), errors.Is(err, messages.ErrNotConfigured):
		return answer{}, nil
	case refused:
		shown := *refusal
		shown.Message = shown.Message[:min(len(shown.Message), maxMessage)] // anybody may have answered
		code := shown.Code()
		return answer{}, &trouble{fmt.Errorf("a worker answers %w", &shown), code != 429 && code < 500}
	case errors.Is(err, nats.ErrNoResponders):
		return answer{}, &trouble{error: errNoWorker}
	case errors.Is(err, messages.ErrReply):
		return answer{}, &trouble{err, !errors.Is(err, context.DeadlineExceeded)} // a worker may reply next time
	case err != nil:
		return answer{}, err
	}
	if err := c.Validate(); err != nil {
		return answer{}, &trouble{err, true}
	}
	revision := c.Revision
	c.Revision = 0 // as in the bucket
	value, err := json.Marshal(c)
	if err != nil {
		return answer{}, &trouble{err, true}
	}
	return answer{value, revision}, nil
}
