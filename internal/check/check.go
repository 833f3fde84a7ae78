package check

import (
	"cmp"
	"context"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// Level is how bad a [Finding] is.
type Level string

// The levels.
const (
	OK   Level = "ok"
	Warn Level = "warn" // it works, but should be looked at before production
	Fail Level = "fail" // a worker would not start, or an account would not be served
)

// The names of the checks, in the order in which they are made.
const (
	Environment = "environment"
	NATS        = "nats"
	Permissions = "permissions"
	Buckets     = "buckets"
	Workers     = "workers"
	Account     = "account"
	Clock       = "clock"
	OtherSystem = "other_system"
)

// Finding is one result of a check. It contains no secret.
type Finding struct {
	Check  string `json:"check"`
	Level  Level  `json:"level"`
	AppID  string `json:"appid,omitempty"`
	What   string `json:"what"`
	Advice string `json:"advice,omitempty"` // what to do; empty if there is nothing to do
}

// Config is what to check.
type Config struct {
	// Config is the configuration of the worker. The checks use its accounts, names, Replicas, WeChat and Now.
	worker.Config

	Environ Environ

	// Pages finds out whether a worker with this environment already serves its HTTP pages, or why a worker
	// could not serve them. If it is nil, the worker would serve no pages.
	Pages func(context.Context) (served bool, err error)

	// NATS is how the worker connects. If its URL is empty and Embedded is nil, NATS is not checked.
	NATS natsconn.Config
	// Embedded returns why the worker's own NATS server could not start. NATS.URL is then the address of that
	// server, which may already run. If Embedded is nil, the worker starts no server, and NATS.URL is another
	// server.
	Embedded func() error
	Open     bool // the worker's own server demands no token of consumers

	Concurrency int // of the checks of accounts; 0 is 16
}

func (c *Config) setDefaults() {
	c.Bucket = cmp.Or(c.Bucket, messages.DefaultBucket)
	c.SubjectPrefix = cmp.Or(c.SubjectPrefix, messages.DefaultPrefix)
	c.Concurrency = cmp.Or(c.Concurrency, 16)
	if c.Now == nil {
		c.Now = time.Now
	}
}

// run is one run of all checks.
type run struct {
	Config
	findings []Finding

	alone    bool           // no worker serves the pages of this environment
	nc       *natsconn.Conn // nil: NATS cannot be reached
	trials   []trial
	denied   map[use]bool // the uses that the server refused
	store    *store.Store
	readable bool // the records and ledger entries can be read
}

// Run makes all checks. It blocks until they are done or ctx ends; then a finding names the accounts that were
// not checked.
func Run(ctx context.Context, cfg Config) []Finding {
	cfg.setDefaults()
	r := &run{Config: cfg}
	r.checkEnvironment()
	if cfg.Pages != nil {
		r.checkPages(ctx)
	}
	if cfg.NATS.URL != "" || cfg.Embedded != nil {
		r.checkNATS(ctx)
	}
	if len(cfg.Accounts) > 0 {
		r.checkAccounts(ctx)
	}
	if r.nc != nil {
		r.nc.Close()
	}
	return r.findings
}

func (r *run) add(level Level, check, what, advice string) {
	r.findings = append(r.findings, Finding{Check: check, Level: level, What: what, Advice: advice})
}
