package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/messages"
)

type statusVerb struct {
	asking
	AppID string `name:"appid" placeholder:"APPID" help:"The account. Default: all."`
	JSON  bool   `name:"json" help:"Print the whole reply."`
}

func (statusVerb) Help() string {
	return `One worker is asked, and tells what the whole fleet knows of each credential, the worst first. Exit code 1 means that a credential is expired, missing or refused: consumers get no value for it now, or one that WeChat does not take.

States: fresh; failing (valid, but refreshing it fails); refused (its life is not over, but WeChat refuses it); expired (dead, and nothing has replaced it); missing (never obtained). docs/operations.md says what to do for each.

Examples:

    wxkeeper status
    wxkeeper status --appid wx0123456789abcdef --json
`
}

// Validate is called by kong.
func (v *statusVerb) Validate() error { return checkAppID(v.AppID) }

func (v *statusVerb) Run(ctx context.Context, t *terminal) error {
	var st messages.Status
	err := v.ask(ctx, t, func(ctx context.Context, client *messages.Client, _ config.Config) (err error) {
		st, err = client.Status(ctx, messages.StatusRequest{AppID: v.AppID})
		return err
	})
	if err != nil {
		return err
	}
	if v.JSON {
		err = t.json(st)
	} else {
		err = printStatus(t, st)
	}
	if err == nil && dead(st) {
		return errSaid
	}
	return err
}

// dead tells whether there is a credential of which consumers get no value, or one that WeChat does not take.
func dead(st messages.Status) bool {
	return st.Summary[messages.StateExpired]+st.Summary[messages.StateMissing]+st.Summary[messages.StateRefused] > 0
}

// states are the states from the worst to the best, and what each means to those who use the credential.
var states = []struct {
	name  messages.State
	means string
}{
	{messages.StateExpired, "the last value is dead and nothing has replaced it: consumers get none"},
	{messages.StateMissing, "there was never a value: consumers get none"},
	{messages.StateRefused, "WeChat refuses it though its life is not over"},
	{messages.StateFailing, "the old value is served until its end; renewing it fails"},
	{messages.StateFresh, ""},
}

func printStatus(t *terminal, st messages.Status) error {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STATE\tACCOUNT\tKIND\tEXPIRES\tNEXT\tCALLS TODAY")
	for _, c := range st.Credentials {
		account, state := c.AppID, string(c.State)
		if c.Name != "" {
			account += " (" + oneLine(c.Name) + ")"
		}
		if c.State != messages.StateFresh {
			state = strings.ToUpper(state) // to be found by a tired eye
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\n", state, account, c.Kind, relative(st.Time, c.ExpiresAt), nextStep(st.Time, c), c.CallsToday)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	// The words about a credential stand below its row, outside the columns, which they would tear apart.
	rows := strings.SplitAfter(table.String(), "\n")
	fmt.Fprint(t.out, rows[0])
	for i, c := range st.Credentials {
		fmt.Fprint(t.out, rows[i+1])
		// What a state means is said once for an account: the rows of one stand together.
		again := i > 0 && st.Credentials[i-1].AppID == c.AppID && st.Credentials[i-1].State == c.State
		for _, line := range trouble(st.Time, c, again) {
			fmt.Fprintln(t.out, "    "+line)
		}
	}
	_, err := fmt.Fprintf(t.out, "\n%s\n", summary(st))
	return err
}

// nextStep says what the worker does next, and when.
func nextStep(now time.Time, c messages.CredentialStatus) string {
	at := ""
	if !c.NextAttempt.IsZero() {
		at = " " + relative(now, c.NextAttempt)
		if c.NextAttempt.Before(now) {
			at = " now"
		}
	}
	switch c.Reason {
	case messages.ReasonFresh:
		if c.Kind != messages.AccessToken { // WeChat repeats a ticket: it is looked at, and seldom a new one
			return "look" + at
		}
		return "renewal" + at
	case messages.ReasonBackoff:
		return "new try" + at
	case messages.ReasonNoToken:
		return "waits for the access_token"
	case messages.ReasonPaced:
		return "slowed down, new try" + at
	case messages.ReasonOthers:
		return "lost by the bucket; if nobody publishes it again, new try" + at
	case messages.ReasonForgotten:
		return "its ledger was lost and is written again"
	case messages.ReasonRefused:
		return "renewal" + at
	case messages.ReasonRefreshing:
		return "being renewed now"
	default:
		return string(c.Reason) + at
	}
}

// trouble says what is wrong with a credential and what to do, in plain words; nothing where all is well. again:
// what its state means has just been said.
func trouble(now time.Time, c messages.CredentialStatus, again bool) (lines []string) {
	for _, s := range states {
		if s.name == c.State && s.means != "" && !again {
			lines = append(lines, s.means)
		}
	}
	if c.Error != "" {
		line := "why: " + oneLine(c.Error)
		if c.RID != "" && !strings.Contains(c.Error, c.RID) {
			line += " (rid " + oneLine(c.RID) + ")"
		}
		lines = append(lines, line)
	}
	if c.Attempts > 0 {
		lines = append(lines, fmt.Sprintf("tries: %d failed in a row, the last %s", c.Attempts, relative(now, c.LastAttempt)))
	}
	if c.Conflicts > 0 {
		line := "conflicts: WeChat refused it long before its end " + times(c.Conflicts)
		if !c.LastConflict.IsZero() {
			line += ", last conflict " + relative(now, c.LastConflict)
		}
		lines = append(lines, line)
	}
	if c.Advice != "" {
		lines = append(lines, "do: "+oneLine(c.Advice))
	}
	return lines
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// summary is the last line: the one that stands above the prompt.
func summary(st messages.Status) string {
	total := 0
	var parts []string
	for _, s := range states {
		if n := st.Summary[s.name]; n > 0 {
			total += n
			parts = append(parts, fmt.Sprintf("%d %s", n, s.name))
		}
	}
	line := fmt.Sprintf("%s, %s", count(st.Accounts, "account"), count(total, "credential"))
	if len(parts) > 0 {
		line += ": " + strings.Join(parts, ", ")
	}
	if st.Truncated {
		line += fmt.Sprintf(" (the %d most urgent are listed; --appid shows one account)", len(st.Credentials))
	}
	return line + fmt.Sprintf("; worker %s, version %s", st.Worker, st.Version)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
