package config

import (
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/setting"
)

// Client is the configuration of a connection as a worker or a consumer: to NATS_URL, or else to the embedded server
// that runs on WXKEEPER_DATA_DIR. There the connection gets the token of the account: without NATS_URL, and also if
// NATS_URL is the address of that server and no variable has credentials. A worker that has the token of consumers
// gets its own. If no server runs on the directory, the URL is that of WXKEEPER_NATS_LISTEN, and empty if that has port
// 0. found is nil unless the connection is to the server of the directory.
func (c Config) Client(name string, account embedded.Account) (nc natsconn.Config, found *embedded.Found, err error) {
	nc = c.NATS(name)
	configured := c.NATSCreds != "" || c.NATSNKey != "" || c.NATSUser != "" || c.NATSToken != "" || c.NATSCert != ""
	if c.NATSURL != "" && configured && !(account == embedded.Workers && c.hasConsumersToken()) {
		return nc, nil, nil
	}
	found, err = embedded.Find(c.DataDir, account)
	switch {
	case c.NATSURL != "" && (found == nil || !sameURL(c.NATSURL, found.URL)):
		return nc, nil, nil // another server, which does not need the directory
	case found != nil:
		nc.URL = found.URL
	default:
		nc.URL = c.usualURL()
	}
	if c.NATSURL == "" && configured && account == embedded.Consumers {
		return nc, found, nil // these credentials are what the embedded server demands
	}
	nc.User, nc.Password, nc.Token = "", "", ""
	switch {
	case err != nil:
		return nc, nil, err
	case found == nil:
		return nc, nil, nil
	case found.Configured:
		return nc, nil, setting.Errorf("NATS_TOKEN", "%s", found.Demand())
	}
	nc.Token = found.Token
	return nc, found, nil
}

// hasConsumersToken reports whether NATS_URL and NATS_TOKEN are what wxkeeper nats-env prints for services: a shell may
// have them when a worker is started in it.
func (c Config) hasConsumersToken() bool {
	found, err := embedded.Find(c.DataDir, embedded.Consumers)
	return err == nil && found != nil && sameURL(c.NATSURL, found.URL) && found.Token != "" && c.NATSToken == found.Token
}

// sameURL reports whether NATS_URL is the URL of an embedded server. It resolves no names: a token is only for this
// server.
func sameURL(natsURL, embeddedURL string) bool {
	natsURL = strings.TrimSuffix(strings.TrimSpace(natsURL), "/")
	return natsURL == embeddedURL || "nats://"+natsURL == embeddedURL
}
