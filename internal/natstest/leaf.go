package natstest

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// StartDomains starts two servers, each with a JetStream domain of its own: hub, and leaf, which is connected to hub as
// a leafnode. change changes the options of both, and may be nil.
func StartDomains(tb testing.TB, change func(*server.Options)) (hub, leaf *Server) {
	tb.Helper()
	if change == nil {
		change = func(*server.Options) {}
	}
	port := freePort(tb)
	hub = Start(tb, change, func(o *server.Options) {
		o.ServerName, o.JetStreamDomain = "hub", "hub"
		o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", port
		o.LeafNode.Username, o.LeafNode.Password = "leaf", accountPassword
	})
	leaf = Start(tb, change, func(o *server.Options) {
		o.ServerName, o.JetStreamDomain = "leaf", "leaf"
		o.LeafNode.ReconnectInterval = 20 * time.Millisecond
		address := fmt.Sprintf("nats://leaf:%s@127.0.0.1:%d", accountPassword, port)
		o.LeafNode.Remotes = []*server.RemoteLeafOpts{Remote(address)}
	})
	end := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for hub.srv.NumLeafNodes() == 0 {
		if time.Now().After(end) {
			tb.Fatal("the leafnode does not connect")
		}
		<-tick.C
	}
	return hub, leaf
}

// Remote is a leafnode remote for the options of a server. Nothing needs to listen at the address.
func Remote(address string) *server.RemoteLeafOpts {
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	return &server.RemoteLeafOpts{URLs: []*url.URL{u}}
}
