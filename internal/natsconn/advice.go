package natsconn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/nats-io/nats.go"
)

// Advices for a connection that cannot be made.
const (
	adviceRefused = "nothing listens there: start the NATS server, or correct the host and the port in NATS_URL (in a " +
		"container, 127.0.0.1 is the container itself)"
	adviceLookup   = "the name of the host is not found: correct NATS_URL, or look at the DNS of this machine"
	adviceNoAnswer = "correct the host in NATS_URL, or look for a firewall in between"
	adviceSilent   = "something listens there and sends nothing: a NATS server with handshake_first (set " +
		"NATS_TLS_FIRST=true), or a port that is not for clients (correct NATS_URL)"
	adviceClosed = "the connection was closed before it was ready: the server may have handshake_first (set " +
		"NATS_TLS_FIRST=true), may be full or stopping, or is no NATS server (correct NATS_URL)"
	adviceFull = "the server, or the NATS account, is full: raise max_connections, or end " +
		"connections that are not needed (nats server report connections)"
	adviceNoNATS = "what listens there is not the port of a NATS server for clients: correct NATS_URL"

	adviceTLSRequired = "the server demands TLS: write tls:// in NATS_URL, and set NATS_CA if its certificate is signed " +
		"by an authority of your own"
	adviceTLSUnavailable = "the server has no TLS, and this client demands it: enable TLS on the server, or write " +
		"nats:// in NATS_URL and unset NATS_CA, NATS_CERT, NATS_KEY and NATS_TLS_FIRST"
	adviceTLSFirst = "the server does not begin with TLS (handshake_first): unset NATS_TLS_FIRST"
	adviceTLS      = "look at the TLS settings of the server, and at NATS_CA, NATS_CERT, NATS_KEY and NATS_TLS_FIRST"

	adviceAuthority = "the certificate of the server is not trusted: set NATS_CA to the file of the authority that " +
		"signed it"
	adviceHostname = "the certificate of the server is for other names: write one of them as the host in NATS_URL"
	adviceExpired  = "the certificate of the server has expired, or is not valid yet: renew it, or correct the clock"
	adviceClient   = "the server does not accept the certificate of this client: set NATS_CERT and NATS_KEY to one " +
		"that its authority signed"
)

// adviceFor says what to do about an error of connecting; "" if its cause is not known.
func adviceFor(err error) string {
	if a := adviceForTLS(err); a != "" {
		return a
	}
	_, lookup := errors.AsType[*net.DNSError](err)
	op, isOp := errors.AsType[*net.OpError](err)
	atDial := isOp && op.Op == "dial"
	var timed interface{ Timeout() bool }
	isOne := func(list ...error) bool {
		return slices.ContainsFunc(list, func(one error) bool { return errors.Is(err, one) })
	}
	switch {
	case lookup:
		return adviceLookup
	case isOne(syscall.ECONNREFUSED):
		return adviceRefused
	case isOne(syscall.EHOSTUNREACH, syscall.ENETUNREACH), atDial && errors.As(err, &timed) && timed.Timeout():
		return adviceNoAnswer
	case isOne(nats.ErrMaxConnectionsExceeded, nats.ErrMaxAccountConnectionsExceeded):
		return adviceFull
	case isOne(io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE):
		return adviceClosed
	case isOne(nats.ErrTimeout), errors.As(err, &timed) && timed.Timeout():
		return adviceSilent
	case isOne(nats.ErrNoInfoReceived), strings.Contains(err.Error(), "protocol"), strings.Contains(err.Error(), "Parser"):
		return adviceNoNATS
	case isOne(nats.ErrNoServers): // nats.go says this of a connection that was closed at once
		return adviceClosed
	case atDial: // other systems have other error numbers
		return adviceNoAnswer
	}
	return ""
}

func adviceForTLS(err error) string {
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	_, hostname := errors.AsType[x509.HostnameError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, unverified := errors.AsType[*tls.CertificateVerificationError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	op, isOp := errors.AsType[*net.OpError](err)
	switch {
	case errors.Is(err, nats.ErrSecureConnRequired):
		return adviceTLSRequired
	case errors.Is(err, nats.ErrSecureConnWanted):
		return adviceTLSUnavailable
	case authority:
		return adviceAuthority
	case hostname:
		return adviceHostname
	case isInvalid && invalid.Reason == x509.Expired:
		return adviceExpired
	case noTLS:
		return adviceTLSFirst
	case isOp && op.Op == "remote error": // crypto/tls: the server has refused our certificate
		return adviceClient
	case unverified, errors.Is(err, nats.ErrTLS):
		return adviceTLS
	}
	return ""
}
