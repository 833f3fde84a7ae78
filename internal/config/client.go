package config

import (
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/setting"
)

// Client is the configuration of a connection as a worker or a consumer: to NATS_URL, or else to the embedded server
// that runs on WXKEEPER_DATA_DIR. There the connection gets the token of the account: without NATS_URL, and also if
// NATS_URL is the address of that server and no variable has credentials. The URL is that of WXKEEPER_NATS_LISTEN if
// no server runs on the directory, and empty if that has port 0. found is nil unless the connection is to the server of
// the directory.
func (c Config) Client(name string, account embedded.Account) (nc natsconn.Config, found *embedded.Found, err error) {
	nc = c.NATS(name)
	configured := c.NATSCreds != "" || c.NATSNKey != "" || c.NATSUser != "" || c.NATSToken != "" || c.NATSCert != ""
	if c.NATSURL != "" && configured {
		return nc, nil, nil
	}
	found, err = embedded.Find(c.DataDir, account)
	switch {
	case c.NATSURL != "" && (found == nil || !sameURL(c.NATSURL, found.URL)):
		return nc, nil, nil // another server, which does not need the directory
	case c.NATSURL == "" && account == embedded.Consumers && configured:
		nc.URL = c.usualURL() // the credentials of the variables are those that the embedded server demands
		if found != nil {
			nc.URL = found.URL
		}
		return nc, found, nil
	case err != nil:
		return nc, nil, err
	}
	// Without NATS_URL, credentials of variables are for consumers only.
	nc.User, nc.Password, nc.Token = "", "", ""
	if found == nil {
		nc.URL = c.usualURL()
		return nc, nil, nil
	}
	if found.Configured {
		return nc, nil, setting.Errorf("NATS_TOKEN", "%s", found.Demand())
	}
	nc.URL, nc.Token = found.URL, found.Token
	return nc, found, nil
}

// sameURL reports whether NATS_URL is the URL of an embedded server. It resolves no names: a token is only for this
// server.
func sameURL(natsURL, embeddedURL string) bool {
	natsURL = strings.TrimSuffix(strings.TrimSpace(natsURL), "/")
	return natsURL == embeddedURL || "nats://"+natsURL == embeddedURL
}
