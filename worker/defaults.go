package worker

import "time"

// Defaults of [Config].
const (
	DefaultRefreshBefore      = 10 * time.Minute
	DefaultResolveConcurrency = 256
	DefaultResolveTimeout     = 4 * time.Second
)
