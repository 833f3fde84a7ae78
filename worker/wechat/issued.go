package wechat

import (
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Issued is a credential that WeChat has issued. Printing, logging or encoding it never shows its Value.
type Issued struct {
	// Value is the access_token or the ticket: 1 to 2048 printable ASCII characters without a space.
	Value string `json:"-"`
	// ExpiresIn is the life that WeChat states, which begins at SentAt at the earliest: more than 0, at most
	// 30 days. For a ticket it is constant, whatever the age of the ticket (docs/wechat-api.md#getticket).
	ExpiresIn time.Duration
	// SentAt is the time right before the request was sent, with a monotonic reading
	// (docs/architecture.md#refresh-9).
	SentAt time.Time
}

// String returns the length of the value, the life and the time, and not the value.
func (i Issued) String() string {
	return fmt.Sprintf("credential of %d bytes, expires in %s from %s", len(i.Value), i.ExpiresIn,
		i.SentAt.UTC().Format(time.RFC3339))
}

// GoString returns the text of String.
func (i Issued) GoString() string { return i.String() }

// Format writes the text of String for every verb. Without it, verbs such as %d would print the fields of the
// struct.
func (i Issued) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, i.String()) }

// LogValue returns the attributes that slog writes; the value is not among them.
func (i Issued) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("bytes", len(i.Value)), slog.Duration("expires_in", i.ExpiresIn),
		slog.Time("sent_at", i.SentAt))
}
