package config

import (
	"context"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/wxkeeper/wxkeeper/worker"
)

// followEvery is how often Follow looks at the files. One look costs one stat for each file.
const followEvery = 2 * time.Second

// Follow reads the accounts again when WECHAT_ACCOUNTS_FILE changes, when a secret file that a variable names
// changes, and for each reason that it receives from reload. It calls apply if the accounts differ from the
// previous ones; have are the first. If the accounts cannot be read, or apply refuses them, the previous
// accounts stay in use, and Follow logs the error once. Follow returns when ctx ends.
func (c *Config) Follow(ctx context.Context, have []worker.Account, reload <-chan string,
	apply func([]worker.Account) error, log *slog.Logger) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	var seen []fileState // nil: the first look also finds what has changed since have was read
	logged := ""
	for {
		why := ""
		select {
		case <-ctx.Done():
			return
		case why = <-reload:
			seen = c.fileStates()
		case <-tick.C:
			now := c.fileStates()
			if slices.Equal(now, seen) {
				continue
			}
			seen, why = now, "a file has changed"
		}
		read, err := c.Accounts()
		if err == nil {
			if reflect.DeepEqual(read, have) {
				log.Debug("accounts read again, nothing has changed", "why", why)
				logged = ""
				continue
			}
			err = apply(read)
		}
		if err != nil {
			seen = nil // the owner or the mode of a file may change, which fileStates does not see: read at each tick
			if text := err.Error(); text != logged {
				log.Error("accounts not read again, the previous accounts stay in use", "why", why, "error", text)
				logged = text
			}
			continue
		}
		log.Info("accounts read again", "why", why, "accounts", len(read), "before", len(have))
		have, logged = read, ""
	}
}

// fileState is what shows that a file has changed; zero for a missing file.
type fileState struct {
	size    int64
	changed time.Time
}

// fileStates are the states of the files that variables name.
func (c *Config) fileStates() []fileState {
	files := []string{c.AccountsFile, c.SecretFile}
	for _, e := range c.Numbered {
		files = append(files, e.SecretFile)
	}
	states := make([]fileState, len(files))
	for i, file := range files {
		if info, err := os.Stat(file); err == nil {
			states[i] = fileState{info.Size(), info.ModTime()}
		}
	}
	return states
}
