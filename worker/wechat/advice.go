package wechat

import (
	"context"
	"errors"
	"slices"
	"syscall"
)

// adviceOf returns the advice for an error that has no more special one: where to look if no usable answer came.
func adviceOf(e *Error) string {
	refused := []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH}
	switch {
	case e.Errcode != 0: // WeChat has answered
		return ""
	case e.Class == ClassServer, e.Class == ClassBroken:
		return "WeChat does not document such an answer: look at WECHAT_API_URL, and for a proxy between this machine " +
			"and WeChat"
	case e.Class != ClassTransport, errors.Is(e.Err, context.Canceled):
		return ""
	case errors.Is(e.Err, ErrLookup):
		return "the name of the host is not found: look at the DNS of this machine, and at WECHAT_API_URL"
	case errors.Is(e.Err, ErrTLS):
		return "this machine does not trust the certificate of the host: look for a proxy that opens TLS, " +
			"at the authorities installed here (ca-certificates, SSL_CERT_FILE, SSL_CERT_DIR), and at the clock"
	case errors.Is(e.Err, context.DeadlineExceeded):
		return "nothing answers in time: look for a firewall that blocks outgoing connections, at HTTPS_PROXY, " +
			"and at WECHAT_HTTP_TIMEOUT"
	case slices.ContainsFunc(refused, func(errno error) bool { return errors.Is(e.Err, errno) }):
		return "the connection is refused: look for a firewall, at HTTPS_PROXY, and at WECHAT_API_URL"
	}
	return "look at the connection to WeChat: DNS, firewall, HTTPS_PROXY, WECHAT_API_URL"
}
