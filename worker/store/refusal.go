package store

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
)

// Refusal is an error of JetStream with an advice.
type Refusal struct {
	Err    error
	Advice string // what an operator should do: sentences
	// Permanent: only an operator can change the answer, so that asking again is useless. Otherwise the refusal may
	// pass, for example when a server starts.
	Permanent bool
}

func (r *Refusal) Error() string { return r.Err.Error() + ". " + r.Advice }

func (r *Refusal) Unwrap() error { return r.Err }

// Explain returns err as a [Refusal] if the reason and the remedy are known, and err itself if not.
func (s *Store) Explain(err error) error {
	if _, known := errors.AsType[*Refusal](err); known || err == nil {
		return err
	}
	a, ok := s.adviceFor(err)
	if !ok {
		return err
	}
	return &Refusal{Err: err, Advice: a.text, Permanent: a.permanent}
}

// advice is what is known of an error of JetStream.
type advice struct {
	permanent bool
	text      string
}

const (
	passing   = false
	permanent = true
)

// Error codes of the server that this package decides on.
const (
	errCodeNoPeers              jetstream.ErrorCode = 10005
	errCodeOverlap              jetstream.ErrorCode = 10065
	errCodeReplicasNotSupported jetstream.ErrorCode = 10074
	errCodeNoTier               jetstream.ErrorCode = 10120
	errCodeStoreFailed          jetstream.ErrorCode = 10077
)

// advices has the advice for each error code of the server (errors.json of nats-server) with which it refuses to make
// a bucket, or to write into it. Error codes that are not listed may pass, and have no advice.
var advices = map[jetstream.ErrorCode]advice{
	10002: {permanent, "The NATS account has used up its JetStream resources. Raise its limits, or remove streams that " +
		"are not needed: nats account info."},
	10008: {passing, adviceQuorum},
	10009: {passing, adviceQuorum},
	10023: {passing, "The NATS servers have no room for the bucket. Give JetStream more storage, or remove streams that " +
		"are not needed: nats server report jetstream."},
	10026: {passing, "The NATS account, or the stream, has as many consumers as it may have. Raise max_consumers, or " +
		"remove consumers that are not needed: nats consumer report. Until then workers read the leader of the stream."},
	10027: {permanent, "The NATS account has as many streams as it may have, and wxkeeper needs two. Raise max_streams " +
		"of the account, or remove streams that are not needed: nats stream ls."},
	10028: {permanent, "The NATS account, or the server, has too little memory storage. Raise max_memory, lower " +
		"WXKEEPER_BUCKET_MAX_BYTES, or set WXKEEPER_BUCKET_STORAGE=file."},
	10039: {permanent, "Enable JetStream for the NATS account of this user (jetstream: enabled), or use a user of " +
		"another account (of the embedded server of another worker: wxkeeper nats-env --worker). If JetStream is in " +
		"another domain, set WXKEEPER_JS_DOMAIN."},
	10047: {permanent, "The NATS account, or the server, has no file storage, or too little. Raise max_file, lower " +
		"WXKEEPER_BUCKET_MAX_BYTES, or set WXKEEPER_BUCKET_STORAGE=memory."},
	10052: {permanent, "The NATS server refuses a setting of the bucket. Correct WXKEEPER_REPLICAS or the variables " +
		"WXKEEPER_BUCKET_…, or make the buckets by hand (docs/deploy.md)."},
	errCodeOverlap: {permanent, "Another stream stores the subjects of the bucket. Change the subjects of that stream " +
		"(nats stream ls), or set another name in WXKEEPER_BUCKET."},
	errCodeReplicasNotSupported: {permanent, "JetStream runs on one server, which cannot keep several replicas. Set " +
		"WXKEEPER_REPLICAS=1, or make the NATS servers a JetStream cluster."},
	10076: {passing, adviceNoJetStream},
	10113: {permanent, "The NATS account demands a largest size of each stream. Set WXKEEPER_BUCKET_MAX_BYTES, for " +
		"example to 64MB."},
	errCodeNoTier: {permanent, "The NATS account has no limits for this number of replicas. Set WXKEEPER_REPLICAS to a " +
		"number for which it has limits (R1, R3): nats account info."},
	10122: {permanent, "The NATS account allows no stream of this size. Lower WXKEEPER_BUCKET_MAX_BYTES, or raise " +
		"disk_max_stream_bytes (for memory: memory_max_stream_bytes) of the account."},
	10185: {permanent, adviceTooOld},
}

const (
	adviceQuorum      = "More than half of the NATS servers with JetStream must run: nats server report jetstream."
	adviceTooOld      = "Install nats-server 2.11 or later on every server: older ones cannot expire leases and records."
	adviceNoJetStream = "Start the NATS server with JetStream: nats-server -js, or jetstream {} with a store_dir in its " +
		"configuration. If JetStream is in another domain, set WXKEEPER_JS_DOMAIN."
)

// adviceFor returns the advice for an error of JetStream.
func (s *Store) adviceFor(err error) (advice, bool) {
	code, description := codeOf(err)
	silent := errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, nats.ErrNoResponders)
	switch {
	case errors.Is(err, jetstream.ErrLimitMarkerTTLNotSupported):
		return advice{permanent, adviceTooOld}, true
	case errors.Is(err, jetstream.ErrBadBucket):
		return advice{permanent, removeAdvice(s.cfg.Bucket)}, true
	case code == errCodeNoPeers:
		return s.adviceForPlacement(description), true
	case code == errCodeStoreFailed && strings.Contains(description, "maximum bytes"):
		return advice{passing, "The bucket is full. Raise its size: nats stream edit " + bucket.Stream(s.cfg.Bucket) +
			" --max-bytes, and the same for " + bucket.Stream(bucket.LedgerOf(s.cfg.Bucket)) + "."}, true
	case silent && s.cfg.JSDomain != "":
		return advice{passing, fmt.Sprintf("No JetStream of the domain %q answers. Correct WXKEEPER_JS_DOMAIN (nats account "+
			"info shows the domain), or look at the leafnode connection to it.", s.cfg.JSDomain)}, true
	case silent:
		return advice{passing, adviceNoJetStream}, true
	}
	a, ok := advices[code]
	return a, ok
}

// codeOf returns the error code and the description of the server's answer; 0 if err is no answer of JetStream.
func codeOf(err error) (code jetstream.ErrorCode, description string) {
	var je jetstream.JetStreamError
	if !errors.As(err, &je) || je.APIError() == nil {
		return 0, ""
	}
	return je.APIError().ErrorCode, je.APIError().Description
}

// noPeers is the description of errCodeNoPeers. After it, the server names the reasons for which it cannot use servers
// that it knows. No reason: it knows too few.
const noPeers = "no suitable peers for placement"

// isTooFewServers reports whether the cluster has never had enough servers with JetStream for the replicas. A server
// that is known and offline counts, because it will come back.
func isTooFewServers(err error) bool {
	code, description := codeOf(err)
	return code == errCodeNoPeers && strings.TrimPrefix(description, noPeers) == ""
}

// adviceForPlacement is the advice for errCodeNoPeers. It always may pass: a server may start, or get another tag.
func (s *Store) adviceForPlacement(description string) advice {
	for _, is := range []struct{ reason, text string }{
		{"tags not matched", "Too few NATS servers have the tags of WXKEEPER_BUCKET_PLACEMENT_TAGS. Correct the " +
			"variable, or the server_tags of the servers."},
		{"tag", "Tags of the NATS servers exclude them, or are not unique. Look at server_tags and unique_tag in their " +
			"configuration."},
		{"insufficient storage", "The NATS servers have too little storage left. Give JetStream more, or lower " +
			"WXKEEPER_BUCKET_MAX_BYTES: nats server report jetstream."},
		{"offline", "NATS servers of the cluster are offline. Start them, or set WXKEEPER_REPLICAS to the number of those " +
			"that run. A server that does not come back: nats server cluster peer-remove."},
		{"jetstream not enabled", adviceNoJetStream},
	} {
		if strings.Contains(description, is.reason) {
			return advice{passing, is.text}
		}
	}
	wants, otherwise := s.cfg.Replicas, "lower WXKEEPER_REPLICAS"
	if wants == 0 {
		wants = defaultReplicas
		otherwise = fmt.Sprintf("set WXKEEPER_REPLICAS=1, which is assumed after %s", fewReplicasAfter)
	}
	return advice{passing, fmt.Sprintf("The cluster has too few servers for %d replicas: start %d NATS servers with "+
		"JetStream, or %s.", wants, wants, otherwise)}
}
