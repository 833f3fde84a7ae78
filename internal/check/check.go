package check

import (
	"context"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// Level is how bad a [Finding] is.
type Level string

// The levels.
const (
	OK   Level = "ok"
	Warn Level = "warn" // it works, and yet: look at it before production
	Fail Level = "fail" // a worker would not start, or an account would not be served
)

// Names of the checks, in the order in which they are made.
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

// Finding is what a check found. It carries no secret.
type Finding struct {
	Check  string `json:"check"`
	Level  Level  `json:"level"`
	AppID  string `json:"appid,omitempty"`
	What   string `json:"what"`
	Advice string `json:"advice,omitempty"` // what to do; where nothing is to be done: empty
}

// Config says what is to be checked.
type Config struct {
	Environ Environ

	// Pages finds out whether a worker of this environment serves its pages already, or why none could. nil: none would.
	Pages func(context.Context) (served bool, err error)

	// NATS says how the worker connects. With an empty URL, and without Embedded, NATS is not checked.
	NATS natsconn.Config
	// Embedded is for a worker that would start a NATS server of its own, and says why it could not; NATS.URL is then
	// where that server would be, or already is. nil: NATS.URL is a server that somebody else runs.
	Embedded func() error

	Bucket        string // "" is kv.DefaultBucket
	SubjectPrefix string // "" is messages.DefaultPrefix
	Replicas      int    // as worker.Config has it

	Accounts []worker.Account
	WeChat   wechat.Config // its OnCall is taken
	// CallsPerSecond bounds the calls of WeChat; 0 is 20. Concurrency is how many are made at once; 0 is 16.
	CallsPerSecond float64
	Concurrency    int

	Now func() time.Time // nil is time.Now
}

func (c *Config) setDefaults() {
	if c.Bucket == "" {
		c.Bucket = messages.DefaultBucket
	}
	if c.SubjectPrefix == "" {
		c.SubjectPrefix = messages.DefaultPrefix
	}
	if c.CallsPerSecond == 0 {
		c.CallsPerSecond = 20
	}
	if c.Concurrency == 0 {
		c.Concurrency = 16
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

// run is one run of all checks.
type run struct {
	Config
	found []Finding

	alone    bool           // no worker serves the pages of this environment
	nc       *natsconn.Conn // nil: NATS cannot be reached
	tried    []probe
	denied   map[use]bool // of what was tried
	store    *store.Store
	readable bool // the records and ledgers can be read
}

// Run makes all checks. It blocks until they are made, or ctx ends: what was not checked until then is told.
func Run(ctx context.Context, cfg Config) []Finding {
	cfg.setDefaults()
	r := &run{Config: cfg}
	r.environment()
	if cfg.Pages != nil {
		r.pages(ctx)
	}
	if cfg.NATS.URL != "" || cfg.Embedded != nil {
		r.nats(ctx)
	}
	if len(cfg.Accounts) > 0 {
		r.accounts(ctx)
	}
	if r.nc != nil {
		r.nc.Close()
	}
	return r.found
}

func (r *run) say(level Level, check, what, advice string) {
	r.found = append(r.found, Finding{Check: check, Level: level, What: what, Advice: advice})
}
