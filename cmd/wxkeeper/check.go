package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/check"
	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/internal/safetext"
	"github.com/wxkeeper/wxkeeper/worker"
)

type checkVerb struct {
	AppID   []string      `name:"appid" placeholder:"APPID" help:"Check only this account. May be repeated. Default: all."`
	Timeout time.Duration `default:"30s" help:"Time limit for all checks together."`
	JSON    bool          `name:"json" help:"Print every finding, as one JSON object."`
}

func (checkVerb) Help() string {
	return `With the environment of a worker it checks what that worker needs: the variables, NATS, the permissions of
its NATS user, the buckets, each account at WeChat, the clock, and whether another system refreshes the same
accounts. It does not disturb running workers and consumers: docs/operations.md describes what it does.

Exit code 0: nothing would fail, but there may be warnings; 1: something would fail; 2: the environment is
wrong.

Examples:

    wxkeeper check
    wxkeeper check --appid wx0123456789abcdef --json
`
}

// Validate is called by kong.
func (v *checkVerb) Validate() error { return checkAppIDs(v.AppID...) }

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
	case len(c.Environ.Wrong) > 0 || c.Environ.NoAccount: // as run does
		return usage(errPrinted)
	case summary[check.Fail] > 0:
		return errPrinted
	}
	return nil
}

// config makes the configuration of the checks from the environment. Faults of the environment are findings, and the
// checks that do not depend on them are made. The returned error is about the command line.
func (v *checkVerb) config() (check.Config, error) {
	var c check.Config
	c.Environ.Unknown = config.UnknownVariables(nil)
	cfg, err := config.Load(nil)
	if err != nil {
		c.Environ.Wrong = append(c.Environ.Wrong, err)
		return c, nil
	}
	c.Environ.OpenFiles, c.Environ.Routes, c.Environ.Certificates = cfg.OpenFiles(), cfg.Routes(), cfg.Certificates()
	accounts, err := cfg.Accounts()
	c.Environ.NoAccount = errors.Is(err, config.ErrNoAccount)
	if err != nil && !c.Environ.NoAccount {
		c.Environ.Wrong = append(c.Environ.Wrong, err)
	}
	if accounts, err = v.selected(accounts); err != nil {
		return c, err
	}
	c.Config, c.Pages = cfg.Worker(accounts), pagesCheck(cfg)
	nc, found, err := cfg.Client("wxkeeper check", embedded.Workers)
	if err == nil {
		err = cfg.CheckEmbedded()
	}
	if err == nil && cfg.NATSURL != "" {
		err = nc.Check()
	}
	if err != nil {
		c.Environ.Wrong = append(c.Environ.Wrong, err)
		return c, nil
	}
	c.NATS, c.Open = nc, found != nil && found.Open
	if cfg.NATSURL == "" {
		c.Embedded, c.Open = cfg.Embedded().Check, c.Open || cfg.NATSOpen
	}
	return c, nil
}

// pagesCheck returns a function that finds out whether a worker already serves its pages under WXKEEPER_HTTP_ADDR, or
// else why a worker could not. It returns nil if a worker would serve no pages.
func pagesCheck(cfg config.Config) func(context.Context) (served bool, err error) {
	if cfg.HTTPAddr == "" {
		return nil
	}
	return func(ctx context.Context) (bool, error) {
		l, err := listenHTTP(cfg.HTTPAddr)
		if err == nil {
			return false, l.Close()
		}
		var out bytes.Buffer
		health := healthVerb{URL: cfg.PagesURL() + "/healthz", Timeout: 2 * time.Second}
		if health.Run(ctx, &terminal{out: &out}) == nil && out.String() == "ok\n" {
			return true, nil
		}
		return false, err
	}
}

// selected returns the accounts of --appid, or all.
func (v *checkVerb) selected(all []worker.Account) ([]worker.Account, error) {
	if len(v.AppID) == 0 || len(all) == 0 {
		return all, nil
	}
	var selected []worker.Account
	for _, id := range v.AppID {
		i := slices.IndexFunc(all, func(a worker.Account) bool { return a.AppID == id })
		if i < 0 {
			return nil, fmt.Errorf("--appid: %s is not an account of this environment", id)
		}
		selected = append(selected, all[i])
	}
	return selected, nil
}

func summarize(found []check.Finding) map[check.Level]int {
	n := map[check.Level]int{check.OK: 0, check.Warn: 0, check.Fail: 0}
	for _, f := range found {
		n[f.Level]++
	}
	return n
}

// maxListed is how many accounts are printed for one check, beginning with the worst level.
const maxListed = 20

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
		hidden := group[min(len(group), maxListed):]
		group = group[:len(group)-len(hidden)]
		for i, f := range group {
			// Adjacent findings with the same advice share one line of advice, below the last of them.
			again := i+1 < len(group) && group[i+1].Advice == f.Advice || n == 1 && len(found) > 0 &&
				found[0].Advice == f.Advice
			printFinding(t, f, !again)
		}
		if len(hidden) > 0 {
			safetext.Fprintf(t.out, "%20sand %s more: %s; --json lists all\n", "", count(len(hidden), "account"),
				levels(summarize(hidden)))
		}
	}
	safetext.Fprintf(t.out, "\n%s\n", levels(summary))
}

// printFinding prints one line, and below it the advice if advise is set.
func printFinding(t *terminal, f check.Finding, advise bool) {
	level := string(f.Level)
	if f.Level != check.OK {
		level = strings.ToUpper(level) // it stands out in a long list
	}
	safetext.Fprintf(t.out, "%-4s  %-12s  %s\n", level, f.Check, f.What)
	if f.Advice != "" && advise {
		safetext.Fprintf(t.out, "%20sdo: %s\n", "", f.Advice)
	}
}

func levels(n map[check.Level]int) string {
	return fmt.Sprintf("%d ok, %s, %s", n[check.OK], count(n[check.Warn], "warning"), count(n[check.Fail], "failure"))
}
