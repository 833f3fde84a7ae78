package wechat

import (
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Issued is a credential as WeChat issued it. However it is printed, logged or encoded, its Value is not shown.
type Issued struct {
	// Value is the access_token or the ticket: 1 to 2048 printable ASCII characters without a space.
	Value string `json:"-"`
	// ExpiresIn is the life that WeChat gave it, counted from SentAt at the earliest: more than 0, at most 30 days. Of a
	// ticket it is constant, however old the ticket is (wechat-api.md 1.3).
	ExpiresIn time.Duration
	// SentAt is the time right before the request was sent, with a monotonic reading.
	SentAt time.Time
}

// String shows everything but the value.
func (i Issued) String() string {
	return fmt.Sprintf("credential of %d bytes, expires in %s from %s", len(i.Value), i.ExpiresIn,
		i.SentAt.UTC().Format(time.RFC3339))
}

// GoString is String.
func (i Issued) GoString() string { return i.String() }

// Format is String for every verb: %d and the like would print the fields of the struct.
func (i Issued) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, i.String()) }

// LogValue is what slog writes of it.
func (i Issued) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("bytes", len(i.Value)), slog.Duration("expires_in", i.ExpiresIn), slog.Time("sent_at", i.SentAt))
}
