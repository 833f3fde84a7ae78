package natstest

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Cluster is a JetStream cluster of several servers in this process.
type Cluster struct {
	Servers []*Server
	tb      testing.TB
}

// StartCluster starts a cluster of three servers, and waits until it has a leader and all members. It stops
// at the end of the test.
func StartCluster(tb testing.TB) *Cluster {
	tb.Helper()
	return StartClusterOf(tb, 3)
}

// StartClusterOf is StartCluster with another number of servers.
func StartClusterOf(tb testing.TB, size int) *Cluster {
	tb.Helper()
	c := &Cluster{Servers: make([]*Server, size), tb: tb}
	var routes []*url.URL
	ports := make([]int, size)
	for i := range ports {
		ports[i] = freePort(tb)
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", ports[i])})
	}
	for i := range c.Servers {
		c.Servers[i] = start(tb, server.Options{
			ServerName: fmt.Sprint("test-", i),
			Cluster:    server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: ports[i]}, Routes: routes,
		})
	}
	c.AwaitReady()
	return c
}

// AwaitReady waits until the cluster has a leader, and every running server is a current member.
func (c *Cluster) AwaitReady() {
	c.tb.Helper()
	end := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !c.ready() {
		if time.Now().After(end) {
			c.tb.Fatal("the cluster does not become ready")
		}
		<-tick.C
	}
}

func (c *Cluster) ready() bool {
	leaders, running := 0, 0
	for _, s := range c.Servers {
		if !s.srv.Running() {
			continue
		}
		running++
		if !s.srv.JetStreamIsCurrent() {
			return false
		}
		if s.srv.JetStreamIsLeader() {
			leaders++
			if len(s.srv.JetStreamClusterPeers()) < len(c.Servers) {
				return false
			}
		}
	}
	return leaders == 1 && running > len(c.Servers)/2
}

// URL is the list of the URLs of all servers.
func (c *Cluster) URL() string {
	urls := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		urls[i] = s.url
	}
	return strings.Join(urls, ",")
}

// Connect opens a connection with the options of workers. It is closed at the end of the test.
func (c *Cluster) Connect(opts ...nats.Option) *nats.Conn {
	c.tb.Helper()
	return connect(c.tb, c.URL(), opts...)
}

// StreamLeader returns the server that is the leader of a stream, or nil.
func (c *Cluster) StreamLeader(stream string) *Server {
	for _, s := range c.Servers {
		if s.srv.Running() && s.srv.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream) {
			return s
		}
	}
	return nil
}

// portsTried counts the ports that freePort has tried in this process.
var portsTried atomic.Int64

// freePort returns a port of the loopback on which a server can listen until the end of the test, also again after it
// has stopped. Nothing takes the port meanwhile: it is below the ports that the system gives to outgoing connections,
// and as long as the test runs, its UDP port is open, which keeps it from other tests and other test processes.
func freePort(tb testing.TB) int {
	tb.Helper()
	const first, count = 10_000, 20_000
	start := os.Getpid() * 500 // so that test processes rarely try the same ports
	for range count {
		port := first + (start+int(portsTried.Add(1)))%count
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		reserved, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			_ = reserved.Close()
			continue
		}
		l.Close()
		tb.Cleanup(func() { _ = reserved.Close() })
		return port
	}
	tb.Fatal("no free port")
	return 0
}
