package check

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/loopback"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/kv"
)

const unchecked = "permissions, buckets and workers are not checked: "

// nats checks the way to NATS, and what stands on it.
func (r *run) nats(ctx context.Context) {
	if !r.connect(ctx) {
		return
	}
	r.server()
	if err := r.probe(ctx); err != nil {
		r.say(Fail, NATS, "the connection broke while the permissions were tried: "+err.Error(), "")
		return
	}
	if err := r.open(); err != nil {
		r.say(Fail, NATS, err.Error(), "")
		return
	}
	var buckets []kv.BucketState
	var err error
	if r.mayInspect() {
		buckets, err = r.inspect(ctx)
		r.jetStream(err)
	}
	r.permissions()
	switch {
	case !r.mayInspect():
		r.say(Warn, Buckets, "not checked: this NATS user may not look at them", "")
	case err == nil:
		r.buckets(ctx, buckets)
	}
	r.workers(ctx)
}

// connect connects, and says why it cannot. Where the worker would start a server of its own, that may be well.
func (r *run) connect(ctx context.Context) bool {
	if r.NATS.URL == "" {
		r.embedded()
		return false
	}
	c := r.NATS
	c.FailFast = true
	nc, err := natsconn.Connect(ctx, c)
	var unreachable *natsconn.UnreachableError
	switch {
	case err == nil:
		r.nc = nc
		return true
	case errors.As(err, &unreachable) && r.Embedded != nil:
		r.embedded()
	case errors.As(err, &unreachable):
		r.say(Fail, NATS, fmt.Sprintf("no server can be reached at %s: %s", unreachable.URL, unreachable.Why),
			"start it, or correct NATS_URL; in a container 127.0.0.1 is the container itself")
		r.say(Warn, NATS, unchecked+"NATS cannot be reached", "")
	default:
		r.say(Fail, NATS, err.Error(), "")
		r.say(Warn, NATS, unchecked+"NATS takes no connection", "")
	}
	return false
}

// embedded checks whether the worker could start its own server.
func (r *run) embedded() {
	if err := r.Embedded(); err != nil {
		r.say(Fail, NATS, "the worker could not start its NATS server: "+err.Error(), "")
		return
	}
	r.say(OK, NATS, "NATS_URL is not set and no wxkeeper runs here: the worker would start its own NATS server; its address is free, its data directory can be used", "")
	r.say(OK, NATS, unchecked+"that server makes all of them", "")
}

// embeddedName is the name of the servers that workers start.
const embeddedName = "wxkeeper"

func (r *run) server() {
	name := r.nc.ConnectedServerName()
	what := fmt.Sprintf("connected to %s, server %s, version %s", r.nc.ConnectedAddr(), name, r.nc.ConnectedServerVersion())
	if cluster := r.nc.ConnectedClusterName(); cluster != "" {
		what += ", cluster " + cluster
	}
	if rtt, err := r.nc.RTT(); err == nil {
		what += fmt.Sprintf(", round trip %s", rtt.Round(10*time.Microsecond))
	}
	switch {
	case r.Embedded == nil:
		r.say(OK, NATS, what, "")
	case name == embeddedName && r.alone:
		r.say(Warn, NATS, what+": that of another wxkeeper, beside which wxkeeper run with this environment does not start", "set NATS_URL to join it")
	case name == embeddedName:
		r.say(OK, NATS, what+": that of the worker that runs here", "")
	default:
		r.say(Fail, NATS, what+": it is not wxkeeper's, and the worker could not start its own there",
			"set NATS_URL to use this server, or WXKEEPER_NATS_LISTEN to another address")
	}
	r.version(r.nc.ConnectedServerVersion())
	_, err := r.nc.TLSConnectionState()
	r.encryption(r.nc.ConnectedAddr(), err == nil)
}

// version refuses servers without what leases and expiring records stand on: TTLs of single messages, and their markers.
func (r *run) version(v string) {
	var major, minor int
	if n, err := fmt.Sscanf(v, "%d.%d", &major, &minor); n == 2 && err == nil && (major < 2 || major == 2 && minor < 11) {
		r.say(Fail, NATS, "server version "+v+" is too old: it cannot end leases and records by itself", "nats-server 2.11 or later is needed")
	}
}

func (r *run) encryption(addr string, encrypted bool) {
	if !encrypted && !loopback.Addr(addr) {
		r.say(Warn, NATS, "the connection is not encrypted: tokens, and the password of this NATS user, cross the network in the clear",
			"use tls:// in NATS_URL, with NATS_CA where the server's certificate is of your own authority; leave it only where nobody can listen")
	}
}

// open makes the Store of the later checks. It asks NATS for nothing.
func (r *run) open() (err error) {
	r.store, err = kv.NewStore(r.nc.Conn, kv.StoreConfig{
		Bucket: r.Bucket, SubjectPrefix: r.SubjectPrefix, Replicas: r.Replicas, Worker: probeAppID, Now: r.Now,
	})
	return err
}

// jetStream says what the first question to JetStream has shown.
func (r *run) jetStream(err error) {
	switch {
	case err == nil:
		r.say(OK, NATS, "JetStream answers", "")
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		r.say(Fail, NATS, "JetStream is off for the NATS account of this user", "switch it on there (jetstream: enabled in the account), or use a user of another account")
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		r.say(Fail, NATS, "this NATS server has no JetStream", "start it with nats-server -js, or write jetstream {} with a store_dir into its configuration")
	default:
		r.say(Fail, NATS, "JetStream does not answer: "+err.Error(), "a cluster needs more than half of its servers: nats server report jetstream")
	}
}
