package embedded

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/internal/setting"
)

// Found is a server that runs.
type Found struct {
	URL   string        // for clients on this machine
	Token redact.Secret // of the account; empty if Open or Configured

	Open       bool // consumers need no token
	Configured bool // this consumer needs what the process of the server has in NATS_TOKEN, or NATS_USER and NATS_PASSWORD
}

// Demand describes what a consumer of a Configured server needs.
func (f *Found) Demand() string {
	return "the embedded NATS server at " + f.URL + " demands the NATS_TOKEN, or the NATS_USER and NATS_PASSWORD, with " +
		"which wxkeeper run was started: set the same here"
}

// Find returns the server that runs on a data directory, and the token of an account. It returns nil if no server runs
// there: a token is only for the process that holds the lock of the directory, and never for what happens to listen
// at the usual address. Its error is a [setting.Error]; it returns the server too if only the token cannot be read.
func Find(dir string, account Account) (*Found, error) {
	o, locked, err := readOwner(dir, true)
	if err != nil || !locked || o.URL == "" {
		return nil, err
	}
	found := &Found{URL: o.URL, Open: o.Consumers == forAll}
	name := workerTokenName
	if account == Consumers {
		name = consumerTokenName
		found.Configured = o.Consumers == byEnvironment
		if found.Open || found.Configured {
			return found, nil
		}
	}
	file := filepath.Join(dir, name)
	found.Token, err = readToken(file, true)
	if errors.Is(err, fs.ErrNotExist) {
		err = setting.Errorf(dirVariable, "the token file %s is missing: restart wxkeeper run, which creates a new token",
			file)
	}
	return found, err
}
