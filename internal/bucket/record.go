package bucket

import (
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/messages"
)

// DecodeRecord decodes the record that is stored under the key of a credential, and checks that it is a record
// of this key: anybody with write access can store anything there. Its error is messages.ErrInvalidCredential
// and does not show what is stored.
func DecodeRecord(data []byte, appid string, kind messages.Kind, revision uint64) (messages.Credential, error) {
	fail := func(problem string) (messages.Credential, error) {
		key := messages.Key(appid, kind)
		return messages.Credential{}, fmt.Errorf("%w: %s %s", messages.ErrInvalidCredential, key, problem)
	}
	var c messages.Credential
	if err := json.Unmarshal(data, &c); err != nil {
		return fail("is not the JSON of a credential")
	}
	if c.AppID != appid || c.Kind != kind {
		return fail("has the record of another key")
	}
	if err := c.Validate(); err != nil {
		return messages.Credential{}, err
	}
	c.Revision = revision
	return c, nil
}

// isRemoval reports whether a message of the stream marks a key as deleted, purged or expired (NATS ADR-8,
// NATS ADR-43).
func isRemoval(h nats.Header) bool {
	return h.Get("KV-Operation") != "" || h.Get(jetstream.MarkerReasonHeader) != ""
}
