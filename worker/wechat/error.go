package wechat

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	maxErrmsg  = 256 // bytes of an errmsg that are kept
	maxCause   = 256 // bytes of the text of a cause that are kept
	maxExcerpt = 200 // bytes of an unusable body that are kept
)

// Error is what every method of [Client] returns when it fails. Nothing in it, however it is printed, carries a secret of
// the request or a credential of the answer.
type Error struct {
	Endpoint Endpoint
	Class    Class
	// Host is the host, with the port if it is not the usual one, that the last attempt went to; empty if there was none.
	Host string
	// Errcode is what WeChat said; 0 when it said none.
	Errcode int
	// Errmsg is what WeChat said, without the rid, masked, without control characters, at most 256 bytes.
	Errmsg string
	// RID is WeChat's id of the request, which its support asks for; empty if it gave none.
	RID string
	// HTTPStatus is 0 when no HTTP answer came.
	HTTPStatus int
	// Sent is false when the request certainly did not reach WeChat, so that it is safe to send it again.
	Sent bool
	// Advice is what an operator should do, in words; empty where nothing can be done.
	Advice string
	// Wait is the shortest time before it makes sense to ask again for this account; 0 means the usual backoff of the
	// class, so also for ClassDailyQuota: when the day ends is the worker's knowledge.
	Wait time.Duration
	// Excerpt is the beginning of a body that could not be used, masked, at most 200 bytes.
	Excerpt string
	// Err is the cause, without any URL; nil where WeChat refused. Of the errors of the standard library it wraps only
	// those that carry nothing: context.DeadlineExceeded, io.EOF, syscall.ECONNREFUSED and the like; in place of others
	// ErrLookup and ErrTLS.
	Err error
}

// What stands between this machine and WeChat, for errors.Is.
var (
	// ErrLookup: the name of the host leads to no address.
	ErrLookup = errors.New("the name cannot be resolved")
	// ErrTLS: somebody answers, but not with a certificate, or a protocol, that can be trusted.
	ErrTLS = errors.New("no TLS")
)

// Error is one line for an operator.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Endpoint) + ": ")
	switch {
	case e.Errcode != 0:
		fmt.Fprintf(&b, "WeChat refused: errcode %d", e.Errcode)
		if e.Errmsg != "" {
			b.WriteString(" " + quoted(e.Errmsg))
		}
		if e.HTTPStatus != 0 && e.HTTPStatus != 200 {
			fmt.Fprintf(&b, " with HTTP %d", e.HTTPStatus)
		}
		if e.RID != "" {
			b.WriteString(" (rid " + e.RID + ")")
		}
		return b.String()
	case e.HTTPStatus == 0 && e.Host == "":
		b.WriteString("not sent")
	case e.HTTPStatus == 0:
		b.WriteString("no answer from " + e.Host)
	case e.Class == ClassTransport:
		fmt.Fprintf(&b, "the answer of %s (HTTP %d) broke off", e.Host, e.HTTPStatus)
	case e.Class == ClassBroken:
		fmt.Fprintf(&b, "%s answered HTTP %d with a body that cannot be used", e.Host, e.HTTPStatus)
	default:
		fmt.Fprintf(&b, "%s answered HTTP %d", e.Host, e.HTTPStatus)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.Excerpt != "" {
		b.WriteString("; it starts with " + quoted(e.Excerpt))
	}
	return b.String()
}

// quoted puts s, which is printable already, in quotes that leave JSON readable.
func quoted(s string) string {
	if strconv.CanBackquote(s) && strings.Contains(s, `"`) {
		return "`" + s + "`"
	}
	return strconv.Quote(s)
}

// Unwrap is the cause, for errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// A cause is what is kept of a foreign error: its masked text, and the errors in it that a caller may decide on. The
// foreign error itself is let go, because a *url.Error, or an error of a custom RoundTripper, holds the URL.
type cause struct {
	text string
	is   []error
}

func (c *cause) Error() string   { return c.text }
func (c *cause) Unwrap() []error { return c.is }

// bare are errors that carry nothing but what they are.
var bare = [...]error{context.DeadlineExceeded, context.Canceled, io.ErrUnexpectedEOF, io.EOF, os.ErrDeadlineExceeded, net.ErrClosed}

// urlPattern finds URLs, of which the host alone is shown.
var urlPattern = regexp.MustCompile(`https?://(?:[^\s/"@]*@)?([^\s/"?#]*)[^\s"]*`)

// newCause takes err apart. serverText says that the text of err may quote bytes of an answer.
func newCause(err error, m *mask, serverText bool) *cause {
	c := &cause{}
	for _, b := range bare {
		if errors.Is(err, b) {
			c.is = append(c.is, b)
		}
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		c.is = append(c.is, errno)
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		c.is = append(c.is, ErrLookup)
	}
	if isTLS(err) {
		c.is = append(c.is, ErrTLS)
	}
	var withURL *url.Error
	if errors.As(err, &withURL) && withURL.Err != nil {
		err = withURL.Err
	}
	c.text = m.line(err.Error())
	if serverText {
		c.text = m.quote(err.Error())
	}
	c.text = clip(urlPattern.ReplaceAllString(c.text, "$1"), maxCause)
	return c
}

// isTLS tells the errors of a handshake. A timeout in the middle of one is a timeout.
func isTLS(err error) bool {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var op *net.OpError // how crypto/tls reports what the other side has told it
	return errors.As(err, &certificate) || errors.As(err, &record) || errors.As(err, &op) && op.Op == "remote error"
}
