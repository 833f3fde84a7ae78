package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/check"
	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
)

type checkVerb struct {
	AppID   []string      `name:"appid" placeholder:"APPID" help:"Check this account alone. May be repeated. Default: all."`
	Timeout time.Duration `default:"30s" help:"How long it may take altogether."`
	JSON    bool          `name:"json" help:"Print every finding, as one JSON object."`
}

func (checkVerb) Help() string {
	return `With the environment of a worker it checks what that worker needs: the variables, NATS, the permissions of its NATS user, the buckets, each account at WeChat, the clock, and whether another system refreshes the same accounts. It changes nothing that anybody notices, and may be run beside workers: docs/operations.md says what it does.

Exit code 0: nothing would fail, though there may be warnings; 1: something would fail; 2: the environment is wrong.

Examples:

    wxkeeper check
    wxkeeper check --appid wx0123456789abcdef --json
`
}

// Validate is called by kong.
func (v *checkVerb) Validate() error {
	for _, id := range v.AppID {
		if err := messages.CheckAppID(id); err != nil {
			return fmt.Errorf("--appid: %w", err)
		}
	}
	return nil
}

func (v *checkVerb) Run(ctx context.Context, t *terminal) error {
	if v.Timeout <= 0 {
		return usage(fmt.Errorf("--timeout: %s is not a positive duration", v.Timeout))
	}
	c, err := v.config()
	if err != nil {
		return usage(err)
	}
	c.Now = t.now
	checking, cancel := context.WithTimeout(ctx, v.Timeout)
	defer cancel()
	found := check.Run(checking, c)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	summary := summarize(found)
	if v.JSON {
		err = t.json(struct {
			Findings []check.Finding     `json:"findings"`
			Summary  map[check.Level]int `json:"summary"`
		}{found, summary})
	} else {
		printFindings(t, found, summary)
	}
	switch {
	case err != nil:
		return err
	case len(c.Environ.Wrong) > 0:
		return usage(errSaid)
	case summary[check.Fail] > 0:
		return errSaid
	}
	return nil
}

// config turns the environment into what is to be checked: all of it that can be, whatever is wrong with the rest. Its
// error is about the command line.
func (v *checkVerb) config() (check.Config, error) {
	var c check.Config
	for _, u := range config.UnknownVariables(nil) {
		c.Environ.Unknown = append(c.Environ.Unknown, check.Unknown(u))
	}
	cfg, err := config.Load(nil)
	if err != nil {
		c.Environ.Wrong = append(c.Environ.Wrong, err)
		return c, nil
	}
	for _, f := range cfg.OpenFiles() {
		c.Environ.OpenFiles = append(c.Environ.OpenFiles, check.OpenFile(f))
	}
	accounts, err := cfg.Accounts()
	c.Environ.NoAccount = errors.Is(err, config.ErrNoAccount)
	if err != nil && !c.Environ.NoAccount {
		c.Environ.Wrong = append(c.Environ.Wrong, err)
	}
	if c.Accounts, err = v.chosen(workerAccounts(accounts)); err != nil {
		return c, err
	}
	c.Bucket, c.SubjectPrefix, c.Replicas, c.WeChat = cfg.Bucket, cfg.SubjectPrefix, cfg.Replicas, wechatConfig(cfg)
	c.Pages = pagesOf(cfg)
	nc := natsConfig(cfg, "wxkeeper check")
	if cfg.NATSURL == "" {
		c.Embedded = embeddedConfig(cfg).Check
		nc.URL = embeddedURL(cfg)
	} else if err := nc.Check(); err != nil {
		c.Environ.Wrong = append(c.Environ.Wrong, err)
		return c, nil
	}
	c.NATS = nc
	return c, nil
}

// embeddedURL is where `wxkeeper run` has its server; "" where nobody knows before it runs.
func embeddedURL(cfg config.Config) string {
	if _, port, err := net.SplitHostPort(cfg.NATSListen); err != nil || port == "0" {
		return ""
	}
	return clientURL(cfg)
}

// chosen are the accounts of --appid, or all.
func (v *checkVerb) chosen(all []worker.Account) ([]worker.Account, error) {
	if len(v.AppID) == 0 || len(all) == 0 {
		return all, nil
	}
	var chosen []worker.Account
	for _, id := range v.AppID {
		i := slices.IndexFunc(all, func(a worker.Account) bool { return a.AppID == id })
		if i < 0 {
			return nil, fmt.Errorf("--appid: %s is not an account of this environment", id)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

func summarize(found []check.Finding) map[check.Level]int {
	n := map[check.Level]int{check.OK: 0, check.Warn: 0, check.Fail: 0}
	for _, f := range found {
		n[f.Level]++
	}
	return n
}

// shownOfOne is how many accounts are listed by one check; the worst come first.
const shownOfOne = 20

var severity = map[check.Level]int{check.Fail: 0, check.Warn: 1, check.OK: 2}

func printFindings(t *terminal, found []check.Finding, summary map[check.Level]int) {
	for len(found) > 0 {
		n := 1
		for n < len(found) && found[n].Check == found[0].Check && found[n].AppID != "" && found[0].AppID != "" {
			n++
		}
		group := slices.Clone(found[:n])
		found = found[n:]
		slices.SortStableFunc(group, func(a, b check.Finding) int { return severity[a.Level] - severity[b.Level] })
		hidden := group[min(len(group), shownOfOne):]
		group = group[:len(group)-len(hidden)]
		for i, f := range group {
			again := i+1 < len(group) && group[i+1].Advice == f.Advice || n == 1 && len(found) > 0 && found[0].Advice == f.Advice
			printFinding(t, f, !again)
		}
		if len(hidden) > 0 {
			fmt.Fprintf(t.out, "%20sand %s more: %s; --json lists all\n", "", count(len(hidden), "account"), levels(summarize(hidden)))
		}
	}
	fmt.Fprintf(t.out, "\n%s\n", levels(summary))
}

// printFinding prints one line, and below it what to do, unless the next line has the same advice.
func printFinding(t *terminal, f check.Finding, advise bool) {
	level := string(f.Level)
	if f.Level != check.OK {
		level = strings.ToUpper(level) // to be found by a tired eye
	}
	fmt.Fprintf(t.out, "%-4s  %-12s  %s\n", level, f.Check, oneLine(f.What))
	if f.Advice != "" && advise {
		fmt.Fprintf(t.out, "%20sdo: %s\n", "", oneLine(f.Advice))
	}
}

func levels(n map[check.Level]int) string {
	return fmt.Sprintf("%d ok, %s, %s", n[check.OK], count(n[check.Warn], "warning"), count(n[check.Fail], "failure"))
}
