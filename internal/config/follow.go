package config

import (
	"context"
	"log/slog"
	"os"
	"reflect"
	"time"
)

// followEvery is how often the files are looked at. A look is a stat or two.
const followEvery = 2 * time.Second

// Follow reads the accounts again when WECHAT_ACCOUNTS_FILE or a secret file that a variable names changes, and at each
// word on asked, which says why, until ctx ends. What is read, and differs from have, goes to apply. What cannot be read, or is refused
// by apply, changes nothing and is logged once.
func (c *Config) Follow(ctx context.Context, have []Account, asked <-chan string, apply func([]Account) error, log *slog.Logger) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	var seen []mark // so that the first look reads what has changed since have was read
	said := ""
	for {
		why := ""
		select {
		case <-ctx.Done():
			return
		case why = <-asked:
			seen = c.marks()
		case <-tick.C:
			now := c.marks()
			if reflect.DeepEqual(now, seen) {
				continue
			}
			seen, why = now, "a file has changed"
		}
		read, err := c.Accounts()
		if err == nil {
			if reflect.DeepEqual(read, have) {
				log.Debug("accounts read again: nothing has changed", "why", why)
				said = ""
				continue
			}
			err = apply(read)
		}
		if err != nil {
			seen = nil // a changed owner or mode leaves no mark: look again at each tick
			if text := err.Error(); text != said {
				log.Error("the accounts cannot be read again: those from before stay", "why", why, "error", text)
				said = text
			}
			continue
		}
		log.Info("accounts read again", "why", why, "accounts", len(read), "before", len(have))
		have, said = read, ""
	}
}

// mark tells one state of a file from another.
type mark struct {
	size    int64
	changed time.Time
	missing bool
}

// marks are those of the files that variables name.
func (c *Config) marks() []mark {
	files := []string{c.AccountsFile, c.SecretFile}
	for _, e := range c.Numbered {
		files = append(files, e.SecretFile)
	}
	var marks []mark
	for _, file := range files {
		if file == "" {
			continue
		}
		info, err := os.Stat(file)
		if err != nil {
			marks = append(marks, mark{missing: true})
			continue
		}
		marks = append(marks, mark{size: info.Size(), changed: info.ModTime()})
	}
	return marks
}
