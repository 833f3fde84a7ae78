package natsconn

import (
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/internal/setting"
)

// Config is the NATS server to connect to, and the user to connect as. The fields come from the environment variables
// of the nats command; errors name these variables.
type Config struct {
	URL string // NATS_URL: one URL, or a comma-separated list; empty means nats://127.0.0.1:4222

	Creds    string        // NATS_CREDS: file with a JWT and its seed
	NKey     string        // NATS_NKEY: file with the seed of a user's nkey
	User     string        // NATS_USER
	Password redact.Secret // NATS_PASSWORD
	Token    redact.Secret // NATS_TOKEN

	CA        string // NATS_CA: PEM file of the authorities that may have signed the server's certificate
	Cert, Key string // NATS_CERT, NATS_KEY: PEM files of the client's certificate

	TLSFirst bool // NATS_TLS_FIRST: the server has handshake_first: it begins with TLS, before it sends anything

	Name        string // the name under which the server lists this connection
	InboxPrefix string // first tokens of the subjects of replies; empty means _INBOX

	Logger         *slog.Logger  // nil: nothing is logged
	ConnectTimeout time.Duration // for one server and one attempt; zero means 2 s
	FailFast       bool          // return an error if no server can be reached, instead of waiting for one
}

const (
	defaultTimeout = 2 * time.Second

	// The connection is closed after two pings without an answer. A dead peer is thus detected within a
	// minute, and not within the six minutes of the default.
	pingInterval = 20 * time.Second

	reconnectWait   = 500 * time.Millisecond
	reconnectJitter = 250 * time.Millisecond
)

// Check returns what is wrong with the configuration itself, without connecting: a URL that cannot be parsed, a file
// that cannot be read. Its error is a [setting.Error]. Connect returns the same errors.
func (c Config) Check() error {
	_, err := c.options()
	return err
}

// options returns the options of every connection. It reads every file once, because nats.go reads the
// credentials only at the handshake, where a missing file looks like a server that cannot be reached.
func (c Config) options() ([]nats.Option, error) {
	if err := CheckURLs(c.URL); err != nil {
		return nil, err
	}
	opts := []nats.Option{
		nats.Name(c.Name),
		nats.Timeout(c.ConnectTimeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectJitter, reconnectJitter),
		nats.ReconnectBufSize(-1), // a write that has failed is never sent later
		nats.PingInterval(pingInterval),
		// credentials are rotated: by default, two refusals close the connection permanently
		nats.IgnoreAuthErrorAbort(),
	}
	if c.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(c.InboxPrefix))
	}
	if c.Creds != "" {
		o, err := credentials(c.Creds)
		if err != nil {
			return nil, setting.Errorf("NATS_CREDS", "%w", err)
		}
		opts = append(opts, o)
	}
	if c.NKey != "" {
		o, err := nkey(c.NKey)
		if err != nil {
			return nil, setting.Errorf("NATS_NKEY", "%w", err)
		}
		opts = append(opts, o)
	}
	if c.User != "" {
		opts = append(opts, nats.UserInfo(c.User, c.Password.Reveal()))
	}
	if c.Token != "" {
		opts = append(opts, nats.Token(c.Token.Reveal()))
	}
	if c.CA != "" {
		o, err := authorities(c.CA)
		if err != nil {
			return nil, setting.Errorf("NATS_CA", "%w", err)
		}
		opts = append(opts, o)
	}
	if c.Cert != "" || c.Key != "" {
		o, err := certificate(c.Cert, c.Key)
		if err != nil {
			return nil, setting.Errorf("NATS_CERT, NATS_KEY", "%w", err)
		}
		opts = append(opts, o)
	}
	if c.TLSFirst {
		opts = append(opts, nats.TLSHandshakeFirst())
	}
	return opts, nil
}

// sends names the credentials that this client sends.
func (c Config) sends() string {
	var all []string
	for _, v := range []struct {
		set  bool
		name string
	}{
		{c.Creds != "", "NATS_CREDS"}, {c.NKey != "", "NATS_NKEY"}, {c.User != "", "NATS_USER and NATS_PASSWORD"},
		{c.Token != "", "a token"}, {c.Cert != "", "NATS_CERT"}, {strings.Contains(c.URL, "@"), "what NATS_URL has"},
	} {
		if v.set {
			all = append(all, v.name)
		}
	}
	if len(all) == 0 {
		return "no credentials"
	}
	return strings.Join(all, ", ")
}

// CheckURLs checks a comma-separated list of NATS URLs; an empty list is valid. It refuses what nats.go would refuse
// with an error that quotes the URL, and so the password in it. Its error is a [setting.Error].
func CheckURLs(list string) error {
	const variable = "NATS_URL"
	if list == "" {
		return nil
	}
	if strings.Trim(list, ", \t\n") == "" { // nats.go would connect to its default
		return setting.Errorf(variable, "%q has no URL, for example nats://host:4222", list)
	}
	for s := range strings.SplitSeq(list, ",") {
		s = strings.TrimSpace(s)
		if s == "" {
			continue
		}
		if !strings.Contains(s, "://") { // nats.go accepts host:port too
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil || u.Host == "" {
			return setting.Errorf(variable,
				"%q is not a URL like nats://host:4222 (special characters in a password must be percent-encoded)",
				redact.URLs(list))
		}
		switch u.Scheme {
		case "nats", "tls", "ws", "wss":
		default:
			return setting.Errorf(variable, "%q has the scheme %q, which is not one of nats, tls, ws, wss",
				redact.URLs(list), u.Scheme)
		}
	}
	return nil
}
