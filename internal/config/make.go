package config

import (
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/internal/loopback"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/permissions"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// Worker is the configuration of a worker of these accounts: see [Config.Accounts]. It has no logger and no metrics.
func (c Config) Worker(accounts []worker.Account) worker.Config {
	return worker.Config{
		Accounts:      accounts,
		Bucket:        c.Bucket,
		SubjectPrefix: c.SubjectPrefix,
		Replicas:      c.Replicas,
		MaxBytes:      int64(c.MaxBytes),
		Memory:        c.Storage == storageMemory,
		PlacementTags: c.PlacementTags,
		JSDomain:      c.JSDomain,

		WeChat:             c.WeChat(),
		RefreshBefore:      c.RefreshBefore,
		ResolveConcurrency: c.ResolveConcurrency,
		ResolveTimeout:     c.ResolveTimeout,
	}
}

// WeChat is the configuration of the client of the WeChat server API.
func (c Config) WeChat() wechat.Config {
	return wechat.Config{
		URLs: c.APIURLs, AllowInsecure: c.APIInsecure, Timeout: c.HTTPTimeout, Proxy: c.proxyFunc(),
	}
}

// NATS is the configuration of a connection to NATS_URL. The NATS server lists the connection under name. The URL is
// empty if NATS_URL is not set: see [Config.Embedded] and [Config.Client].
func (c Config) NATS(name string) natsconn.Config {
	return natsconn.Config{
		URL: c.NATSURL, Name: name, InboxPrefix: c.NATSInbox,
		Creds: c.NATSCreds, NKey: c.NATSNKey, User: c.NATSUser, Password: c.NATSPassword, Token: c.NATSToken,
		CA: c.NATSCA, Cert: c.NATSCert, Key: c.NATSKey, TLSFirst: c.NATSTLSFirst,
	}
}

// Embedded is the configuration of the NATS server that a worker starts if NATS_URL is not set.
func (c Config) Embedded() embedded.Config {
	requests, surveys, published := permissions.Exports(c.SubjectPrefix, c.Bucket)
	return embedded.Config{
		Listen: c.NATSListen, DataDir: c.DataDir, Open: c.NATSOpen,
		User: c.NATSUser, Password: c.NATSPassword, Token: c.NATSToken,
		Exports: embedded.Exports{Requests: requests, Surveys: surveys, Messages: published},
	}
}

// usualURL is the URL at which a client on this machine reaches the embedded server of a worker with the same
// environment. It is empty if that server chooses its port when it starts.
func (c Config) usualURL() string {
	if strings.HasSuffix(c.NATSListen, ":0") {
		return ""
	}
	return "nats://" + loopback.Reachable(c.NATSListen)
}

// PagesURL is the URL at which a client on this machine reaches the pages of a worker, without a path. It is empty if
// WXKEEPER_HTTP_ADDR is none.
func (c Config) PagesURL() string {
	if c.HTTPAddr == "" {
		return ""
	}
	return "http://" + loopback.Reachable(c.HTTPAddr)
}
