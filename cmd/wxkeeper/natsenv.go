package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/internal/setting"
)

type natsEnvVerb struct {
	Worker bool `help:"Print the token of workers, with which everything can be read and changed."`
}

func (natsEnvVerb) Help() string {
	return `It prints NATS_URL and the token of the embedded server that runs on WXKEEPER_DATA_DIR, as commands for a
shell. Services and the nats command use the same variables. The verbs of wxkeeper find the token by themselves.

Examples:

    eval "$(wxkeeper nats-env)"
    eval "$(wxkeeper nats-env --worker)"
`
}

func (v *natsEnvVerb) Run(t *terminal) error {
	cfg, err := config.Load(nil)
	if err != nil {
		return err
	}
	account := embedded.Consumers
	if v.Worker {
		account = embedded.Workers
	}
	found, err := embedded.Find(cfg.DataDir, account)
	switch {
	case err != nil:
		return err
	case found == nil:
		return fmt.Errorf("no wxkeeper with an embedded NATS server runs on the data directory %s: start `wxkeeper "+
			"run`, or set WXKEEPER_DATA_DIR to its directory", cfg.DataDir)
	case found.Configured && cfg.NATSToken == "" && cfg.NATSUser == "":
		return setting.Errorf("NATS_TOKEN", "%s", found.Demand())
	}
	exports := []string{"NATS_URL", found.URL}
	switch {
	case found.Configured && cfg.NATSUser != "":
		exports = append(exports, "NATS_USER", cfg.NATSUser, "NATS_PASSWORD", cfg.NATSPassword.Reveal())
	case found.Configured:
		exports = append(exports, "NATS_TOKEN", cfg.NATSToken.Reveal())
	case found.Token != "":
		exports = append(exports, "NATS_TOKEN", found.Token.Reveal())
	}
	// Other credentials would contradict them.
	text := "unset NATS_CREDS NATS_NKEY NATS_USER NATS_PASSWORD NATS_TOKEN\n"
	for i := 0; i < len(exports); i += 2 {
		text += "export " + exports[i] + "=" + quote(exports[i+1]) + "\n"
	}
	_, err = io.WriteString(t.out, text) // for a shell, so nothing is escaped but by quote
	return err
}

// quote returns a text as one word of a POSIX shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
