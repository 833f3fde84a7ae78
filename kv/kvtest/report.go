package kvtest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/messages"
)

// AnswerReports decides what happens to reports of the current value. f returns the new value that WeChat
// issues, "" if WeChat accepts the reported value, or an error, for example messages.ErrThrottled. If f is nil,
// each report of the current value makes a new one. f must not call the bucket.
func (b *Bucket) AnswerReports(f func(current messages.Credential) (value string, err error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answerReport = f
}

// Reports is how many reports the bucket has received.
func (b *Bucket) Reports() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reports
}

// Report reports that WeChat refused a value, and returns what a worker would reply. A kv.Transport of a Reader
// of this bucket calls it.
func (b *Bucket) Report(ctx context.Context, req messages.RefreshCredentialRequest) (messages.Refreshed, error) {
	if err := ctx.Err(); err != nil {
		return messages.Refreshed{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.disconnected {
		return messages.Refreshed{}, fmt.Errorf("kvtest: %w", nats.ErrNoResponders)
	}
	b.reports++
	kind := req.Kind
	if req.Kind == "" {
		kind = messages.AccessToken
	}
	c, ok := b.records[messages.Key(req.AppID, kind)]
	if !ok {
		return messages.Refreshed{}, messages.Errorf(messages.NoCredential,
			"the bucket of the test has no such credential")
	}
	otherRevision := req.Revision != 0 && req.Revision != c.Revision
	otherValue := req.ValueSHA256 != "" && !strings.EqualFold(req.ValueSHA256, messages.ValueSHA256(c.Value))
	if otherRevision || otherValue {
		return refreshed(c, messages.ReasonNotCurrent), nil
	}
	value := fmt.Sprintf("kvtest-%s-%d", kind, c.Generation+1)
	if b.answerReport != nil {
		var err error
		if value, err = b.answerReport(c); err != nil {
			return messages.Refreshed{}, err
		}
	}
	if value == "" {
		return refreshed(c, messages.ReasonAlive), nil
	}
	return refreshed(b.set(c.AppID, kind, value, max(c.Life(), time.Second)), messages.ReasonRefreshed), nil
}

func refreshed(c messages.Credential, reason messages.Reason) messages.Refreshed {
	return messages.Refreshed{
		AppID: c.AppID, Kind: c.Kind, Revision: c.Revision, Generation: c.Generation, ExpiresAt: c.ExpiresAt,
		Refreshed: reason == messages.ReasonRefreshed, Reason: reason,
	}
}
