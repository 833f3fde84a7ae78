package wechat

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	maxErrmsg  = 256 // bytes kept of an errmsg
	maxCause   = 256 // bytes kept of the text of a cause
	maxExcerpt = 200 // bytes of the structure of an unusable body
)

// Error is the error of every method of [Client]. It carries no secret of the request and no credential of
// the answer, however it is printed.
type Error struct {
	Endpoint Endpoint
	Class    Class
	// Host is the host of the last attempt, with the port unless it is the default port of the scheme; empty
	// if there was no attempt.
	Host string
	// Errcode is WeChat's errcode; 0 if there was none.
	Errcode int
	// Errmsg is WeChat's errmsg without the rid, masked, without control characters, at most 256 bytes.
	Errmsg string
	// RID is WeChat's id of the request, which WeChat's support asks for; empty if there was none.
	RID string
	// HTTPStatus is the status of the answer; 0 if no HTTP answer arrived.
	HTTPStatus int
	// Sent is false if the request certainly did not reach WeChat. It is then safe to send the request again.
	Sent bool
	// Advice is an imperative sentence for an operator; empty if an operator can do nothing.
	Advice string
	// Wait is the shortest useful time before the next request for this account; 0 means the usual backoff of
	// the class. It is 0 for ClassDailyQuota too, because this package does not know when a day ends.
	Wait time.Duration
	// Excerpt is the structure of a body that could not be used: names, types and lengths of its members, and no value.
	// At most 200 bytes.
	Excerpt string
	// Err is the cause without any URL; nil if WeChat refused the request. It wraps only errors of the
	// standard library that carry no data (context.DeadlineExceeded, io.EOF, syscall.ECONNREFUSED and
	// similar), and ErrLookup, ErrTLS or ErrProxy in place of others.
	Err error
}

// Failures of the network path to WeChat, for errors.Is.
var (
	// ErrLookup: the name of the host cannot be resolved to an address.
	ErrLookup = errors.New("the name cannot be resolved")
	// ErrTLS: the other side presents no trusted certificate, or does not speak TLS.
	ErrTLS = errors.New("no TLS")
	// ErrProxy: the proxy cannot be reached, or opens no connection to the host.
	ErrProxy = errors.New("no connection through the proxy")
)

// Error returns one line for an operator.
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
		fmt.Fprintf(&b, "the answer of %s (HTTP %d) was cut off", e.Host, e.HTTPStatus)
	case e.Class == ClassBroken:
		fmt.Fprintf(&b, "%s answered HTTP %d with a body that cannot be used", e.Host, e.HTTPStatus)
	default:
		fmt.Fprintf(&b, "%s answered HTTP %d", e.Host, e.HTTPStatus)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.Excerpt != "" {
		b.WriteString("; the body is " + e.Excerpt)
	}
	return b.String()
}

// Unread reports whether WeChat has answered with success, and the answer cannot be read: it is not as documented, or
// was cut off. WeChat has then probably done what the request asks for.
func (e *Error) Unread() bool {
	return e.Class == ClassBroken || e.HTTPStatus == http.StatusOK && e.Errcode == 0
}

// quoted puts s, which is already printable, in quotes that leave JSON readable.
func quoted(s string) string {
	if strconv.CanBackquote(s) && strings.Contains(s, `"`) {
		return "`" + s + "`"
	}
	return strconv.Quote(s)
}

// Unwrap returns the cause, for errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// A cause replaces a foreign error: it has the masked text of that error, and the errors in it that a caller
// may decide on. The foreign error itself is dropped, because a *url.Error and the errors of a custom
// RoundTripper contain the URL.
type cause struct {
	text string
	is   []error
}

func (c *cause) Error() string   { return c.text }
func (c *cause) Unwrap() []error { return c.is }

// sentinels are errors without data, which a cause may wrap.
var sentinels = [...]error{
	context.DeadlineExceeded, context.Canceled, io.ErrUnexpectedEOF, io.EOF, os.ErrDeadlineExceeded, net.ErrClosed,
}

// urlPattern finds URLs. An error shows only their host.
var urlPattern = regexp.MustCompile(`https?://(?:[^\s/"@]*@)?([^\s/"?#]*)[^\s"]*`)

// newCause returns the cause that replaces err. serverText: the text of err may quote bytes of an answer, so it is
// replaced by words of this package unless it is an error of the network.
func newCause(err error, m *mask, serverText bool) *cause {
	c := &cause{}
	for _, s := range sentinels {
		if errors.Is(err, s) {
			c.is = append(c.is, s)
		}
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		c.is = append(c.is, errno)
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		c.is = append(c.is, ErrLookup)
	}
	if isTLS(err) {
		c.is = append(c.is, ErrTLS)
	}
	if withURL, ok := errors.AsType[*url.Error](err); ok && withURL.Err != nil {
		err = withURL.Err
	}
	if errors.As(err, new(*proxyError)) {
		c.is = append(c.is, ErrProxy)
	}
	text := err.Error()
	if serverText {
		text = withoutAnswer(err)
	}
	c.text = m.line(text)
	c.text = clip(urlPattern.ReplaceAllString(c.text, "$1"), maxCause)
	return c
}

// faultsOfHTTP are the beginnings of the errors with which net/http refuses an answer. Most of them go on with a quote.
var faultsOfHTTP = []string{
	"malformed HTTP response", "malformed HTTP version", "malformed HTTP status code", "malformed MIME header",
	"malformed chunked encoding", "invalid byte in chunk length", "http chunk length too large",
	"bad Content-Length", "invalid Content-Length", "unsupported transfer encoding", "too many transfer encodings",
	"server response headers exceeded", "server sent GOAWAY and closed the connection", "stream error",
	"frame too large", "response header list", "server closed idle connection", "timeout awaiting response headers",
}

// withoutAnswer returns the text of err without what it may quote of an answer.
func withoutAnswer(err error) string {
	var network net.Error
	if errors.Is(err, errNotRepeated) || errors.As(err, &network) || isTLS(err) ||
		slices.ContainsFunc(sentinels[:], func(s error) bool { return errors.Is(err, s) }) ||
		errors.As(err, new(syscall.Errno)) {
		return err.Error()
	}
	text := err.Error()
	for _, fault := range faultsOfHTTP {
		if strings.Contains(text, fault) {
			return fault
		}
	}
	return "the answer cannot be read as HTTP"
}

// isTLS reports whether err is an error of a TLS handshake. A timeout during a handshake is not one.
func isTLS(err error) bool {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var op *net.OpError // crypto/tls wraps an alert of the other side in one
	return errors.As(err, &certificate) || errors.As(err, &record) || errors.As(err, &op) && op.Op == "remote error"
}
