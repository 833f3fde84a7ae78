package redact

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a string that must not be shown: an AppSecret, a password, a token. It prints as *** with every
// verb of fmt, in slog, and as JSON or text, also inside another value. [Secret.Reveal] returns the string
// itself.
//
// Three ways around its methods remain, because fmt and encoding/json then call none: an unexported field, a
// struct without a Format method behind a pointer that is itself inside another value (fmt with any verb but
// %v), and a key of a map (JSON). So keep a Secret in an exported field, and give a struct that is handed
// around by pointer a Format method. (fmt also calls no method for %p, and for %w outside of Errorf; go vet
// refuses both.)
type Secret string

const mask = "***"

// Reveal returns the secret itself, for the call that needs it.
func (s Secret) Reveal() string { return string(s) }

// String returns ***.
func (Secret) String() string { return mask }

// GoString returns ***.
func (Secret) GoString() string { return mask }

// Format prints *** for every verb and every flag.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, mask) }

// MarshalText returns ***.
func (Secret) MarshalText() ([]byte, error) { return []byte(mask), nil }

// MarshalJSON returns "***".
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + mask + `"`), nil }

// LogValue returns ***.
func (Secret) LogValue() slog.Value { return slog.StringValue(mask) }
