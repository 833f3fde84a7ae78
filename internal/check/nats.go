package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/loopback"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

const notChecked = "permissions, buckets and workers are not checked: "

// checkNATS checks the connection to NATS, and everything that needs it.
func (r *run) checkNATS(ctx context.Context) {
	if !r.connect(ctx) {
		return
	}
	r.checkServer()
	if err := r.try(ctx); err != nil {
		r.add(Fail, NATS, "the connection broke while the permissions were tried: "+err.Error(), "")
		return
	}
	if err := r.open(); err != nil {
		r.add(Fail, NATS, err.Error(), "")
		return
	}
	var buckets []store.BucketState
	var err error
	mayInspect := r.mayAsk("INFO")
	if mayInspect {
		buckets, err = r.inspect(ctx)
		r.checkJetStream(err)
	}
	r.checkPermissions()
	switch {
	case !mayInspect:
		r.add(Warn, Buckets, "not checked: this NATS user may not inspect the buckets", "")
	case err == nil:
		r.checkBuckets(ctx, buckets)
	}
	r.checkWorkers(ctx)
}

// connect connects to NATS, or makes findings of why it cannot. It is no fault if the worker would start its
// own server and that server does not run yet.
func (r *run) connect(ctx context.Context) bool {
	if r.NATS.URL == "" {
		r.checkEmbedded()
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
		r.checkEmbedded()
	case errors.As(err, &unreachable):
		r.add(Fail, NATS, fmt.Sprintf("no server can be reached at %s: %s", unreachable.URL, unreachable.Why),
			cmp.Or(unreachable.Advice, "start the server, or correct NATS_URL"))
		r.add(Warn, NATS, notChecked+"NATS cannot be reached", "")
	case errors.Is(err, nats.ErrAuthorization) && r.Embedded != nil:
		r.add(Fail, NATS, "a NATS server that demands other credentials listens at "+redact.URLs(c.URL)+
			", where the worker would start its own", "set WXKEEPER_DATA_DIR to the directory of the wxkeeper that runs "+
			"there, set NATS_URL to use this server, or set WXKEEPER_NATS_LISTEN to another address")
		r.add(Warn, NATS, notChecked+"NATS accepts no connection", "")
	default:
		r.add(Fail, NATS, err.Error(), "")
		r.add(Warn, NATS, notChecked+"NATS accepts no connection", "")
	}
	return false
}

// checkOpen warns of a server of wxkeeper that everybody may use.
func (r *run) checkOpen() {
	if r.Open {
		r.add(Warn, NATS, "the worker's own NATS server demands no token (WXKEEPER_NATS_OPEN=true): every user of this "+
			"machine can read every credential", "unset WXKEEPER_NATS_OPEN; wxkeeper nats-env prints the token for services")
	}
}

// checkEmbedded checks whether the worker could start its own server.
func (r *run) checkEmbedded() {
	if err := r.Embedded(); err != nil {
		r.add(Fail, NATS, "the worker could not start its NATS server: "+err.Error(), "")
		return
	}
	r.add(OK, NATS, "NATS_URL is not set and no wxkeeper runs here: the worker would start its own NATS server; "+
		"its address is free, and its data directory can be used", "")
	r.checkOpen()
	r.add(OK, NATS, notChecked+"the worker's own server allows and creates everything", "")
}

// embeddedName is the name of the servers that workers start.
const embeddedName = "wxkeeper"

func (r *run) checkServer() {
	name := r.nc.ConnectedServerName()
	addr, version := r.nc.ConnectedAddr(), r.nc.ConnectedServerVersion()
	what := fmt.Sprintf("connected to %s, server %s, version %s", addr, name, version)
	if cluster := r.nc.ConnectedClusterName(); cluster != "" {
		what += ", cluster " + cluster
	}
	if rtt, err := r.nc.RTT(); err == nil {
		what += fmt.Sprintf(", round trip %s", rtt.Round(10*time.Microsecond))
	}
	switch {
	case r.Embedded == nil:
		r.add(OK, NATS, what, "")
		r.checkOpen()
	case name == embeddedName && r.alone:
		r.add(Warn, NATS, what+": it belongs to another wxkeeper, "+
			"and wxkeeper run with this environment does not start beside it",
			"set NATS_URL to use its server")
	case name == embeddedName:
		r.add(OK, NATS, what+": it belongs to the worker that runs here", "")
		r.checkOpen()
	default:
		r.add(Fail, NATS, what+": it does not belong to wxkeeper, and the worker could not start its own server there",
			"set NATS_URL to use this server, or set WXKEEPER_NATS_LISTEN to another address")
	}
	r.checkVersion(version)
	_, err := r.nc.TLSConnectionState()
	r.checkEncryption(addr, err == nil)
}

// checkVersion refuses servers without TTLs of single messages and their markers: leases, and records that
// expire, need both.
func (r *run) checkVersion(v string) {
	var major, minor int
	n, err := fmt.Sscanf(v, "%d.%d", &major, &minor)
	if known := n == 2 && err == nil; known && (major < 2 || major == 2 && minor < 11) {
		r.add(Fail, NATS, "server version "+v+" is too old: it cannot expire leases and records",
			"install nats-server 2.11 or later")
	}
}

func (r *run) checkEncryption(addr string, encrypted bool) {
	if !encrypted && !loopback.Addr(addr) {
		r.add(Warn, NATS, "the connection is not encrypted: "+
			"tokens, and the password of this NATS user, can be read in the network",
			"use tls:// in NATS_URL, with NATS_CA if the server's certificate is signed by your own authority; "+
				"without TLS, make sure that nobody else can read the network")
	}
}

// open makes the Store that later checks use. It sends nothing.
func (r *run) open() (err error) {
	r.store, err = store.New(r.nc.Conn, store.Config{
		Bucket: r.Bucket, SubjectPrefix: r.SubjectPrefix, Replicas: r.Replicas, Worker: trialAppID, Now: r.Now,
		MaxBytes: r.MaxBytes, Memory: r.Memory, PlacementTags: r.PlacementTags, JSDomain: r.JSDomain, Keys: r.keys,
	})
	return err
}

// checkJetStream makes a finding of the result of the first request to JetStream.
func (r *run) checkJetStream(err error) {
	switch {
	case err == nil:
		r.add(OK, NATS, "JetStream answers", "")
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) && r.nc.ConnectedServerName() == embeddedName:
		r.add(Fail, NATS, "these are the credentials of consumers: the server of another worker gives a consumer no "+
			"JetStream", `unset NATS_URL and NATS_TOKEN, or eval "$(wxkeeper nats-env --worker)"`)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		r.add(Fail, NATS, "JetStream is off for the NATS account of this user",
			"switch it on (jetstream: enabled in the account), or use a user of another account; if JetStream is in another "+
				"domain, set WXKEEPER_JS_DOMAIN")
	case isSilent(err) && r.JSDomain != "":
		r.add(Fail, NATS, "no JetStream answers in the domain "+r.JSDomain, r.adviceFor(err))
	case isSilent(err):
		r.add(Fail, NATS, "this NATS server has no JetStream",
			"start it with nats-server -js, or write jetstream {} with a store_dir into its configuration; if JetStream is "+
				"in another domain, set WXKEEPER_JS_DOMAIN")
	default:
		r.add(Fail, NATS, "JetStream does not answer: "+err.Error(),
			"look at the cluster: nats server report jetstream; more than half of its servers must run")
	}
}

// isSilent reports whether there is no JetStream that could answer.
func isSilent(err error) bool {
	return errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, nats.ErrNoResponders)
}

// adviceFor is the advice of package store for an error of JetStream; "" if there is none.
func (r *run) adviceFor(err error) string {
	if refusal, ok := errors.AsType[*store.Refusal](r.store.Explain(err)); ok {
		return refusal.Advice
	}
	return ""
}
