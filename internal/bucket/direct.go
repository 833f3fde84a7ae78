package bucket

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/messages"
)

// Direct reads records by direct gets (NATS ADR-31): a server answers them, also while no worker runs. The
// user needs the permission for direct gets of its own keys. domain is the JetStream domain of the bucket; "": none.
func Direct(nc *nats.Conn, domain, bucket string) Records { return direct{nc, domain, bucket} }

type direct struct {
	nc             *nats.Conn
	domain, bucket string
}

var errNoBucket = errors.New("the bucket does not exist, or JetStream is not available")

func (d direct) asks() []string {
	subject := DirectGetAPI(d.bucket, "")
	return []string{subject, InDomain(d.domain, subject)} // a server of the domain refuses the first, others the second
}

func (d direct) read(ctx context.Context, n Name) (answer, error) {
	subject := InDomain(d.domain, DirectGetAPI(d.bucket, messages.Key(n.AppID, n.Kind)))
	m, err := d.nc.RequestWithContext(ctx, subject, nil)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return answer{}, &trouble{error: errNoBucket}
	case err != nil:
		return answer{}, err
	}
	switch status := m.Header.Get("Status"); status {
	case "":
	case "404":
		return answer{}, nil
	default:
		return answer{}, &trouble{error: fmt.Errorf("the server answers %.20q", status)}
	}
	revision, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return answer{}, &trouble{error: errors.New("the answer has no sequence")}
	}
	if isRemoval(m.Header) {
		return answer{revision: revision}, nil
	}
	return answer{m.Data, revision}, nil
}
