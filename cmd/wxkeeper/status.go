package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/safetext"
	"github.com/wxkeeper/wxkeeper/messages"
)

type statusVerb struct {
	clientFlags
	AppID string `name:"appid" placeholder:"APPID" help:"The account. Default: all."`
	JSON  bool   `name:"json" help:"Print the whole reply."`
}

func (statusVerb) Help() string {
	return `One worker answers with what the whole fleet knows about each credential, the worst state first. Exit code 1
means that a credential is expired, missing or refused: consumers get no value for it now, or a value that
WeChat refuses.

States: fresh; failing (valid, but refreshing it fails); refused (not expired, but WeChat refuses it);
expired (and not replaced yet); missing (never obtained); not_permitted (WeChat does not permit this kind of
ticket to the account). docs/operations.md describes what to do for each state.

Examples:

    wxkeeper status
    wxkeeper status --appid wx0123456789abcdef --json
`
}

// Validate is called by kong.
func (v *statusVerb) Validate() error { return checkAppIDs(v.AppID) }

func (v *statusVerb) Run(ctx context.Context, t *terminal) error {
	var st messages.Status
	err := v.request(ctx, t, func(ctx context.Context, client *messages.Client, _ config.Config) (err error) {
		st, err = client.Status(ctx, messages.StatusRequest{AppID: v.AppID})
		return err
	})
	switch {
	case err != nil:
		return err
	case st.Time.IsZero(): // all times are shown relative to it
		return fmt.Errorf("%w: it lacks time", messages.ErrReply)
	}
	if v.JSON {
		err = t.json(st)
	} else {
		err = printStatus(t, st)
	}
	if err == nil && dead(st) {
		return errPrinted
	}
	return err
}

// dead reports whether there is a credential for which consumers get no value, or a value that WeChat refuses.
func dead(st messages.Status) bool {
	return st.Summary[messages.StateExpired]+st.Summary[messages.StateMissing]+st.Summary[messages.StateRefused] > 0
}

// states are all states from the worst to the best, and what each means for consumers.
var states = []struct {
	name  messages.State
	means string
}{
	{messages.StateExpired, "the last value has expired and was not replaced yet: consumers get no value"},
	{messages.StateMissing, "there was never a value: consumers get no value"},
	{messages.StateRefused, "WeChat refuses the value although it has not expired"},
	{messages.StateFailing, "refreshing fails; consumers get the old value until it expires"},
	{messages.StateNotPermitted, "WeChat does not permit this kind of ticket to the account, and never issued one"},
	{messages.StateFresh, ""},
}

func printStatus(t *terminal, st messages.Status) error {
	var table strings.Builder
	cells := [][]string{{"STATE", "ACCOUNT", "KIND", "EXPIRES", "NEXT", "CALLS TODAY"}}
	for _, c := range st.Credentials {
		account, state := c.AppID, string(c.State)
		if c.Name != "" {
			account += " (" + c.Name + ")"
		}
		if c.State != messages.StateFresh {
			state = strings.ToUpper(state) // it stands out in a long table
		}
		cells = append(cells, []string{
			state, account, string(c.Kind), relative(st.Time, c.ExpiresAt), nextStep(st.Time, c), strconv.Itoa(c.CallsToday),
		})
	}
	if err := safetext.Table(&table, cells); err != nil {
		return err
	}
	// The lines about a credential are below its row and outside of the columns, which would become too wide.
	rows := strings.SplitAfter(table.String(), "\n")
	_, _ = io.WriteString(t.out, rows[0])
	for i, c := range st.Credentials {
		_, _ = io.WriteString(t.out, rows[i+1])
		// The meaning of a state is printed once for each account, whose rows are adjacent.
		again := i > 0 && st.Credentials[i-1].AppID == c.AppID && st.Credentials[i-1].State == c.State
		for _, line := range explanation(st.Time, c, again) {
			safetext.Fprintf(t.out, "    %s\n", line)
		}
	}
	_, err := safetext.Fprintf(t.out, "\n%s\n", summary(st))
	return err
}

// nextStep describes what the worker does next, and when.
func nextStep(now time.Time, c messages.CredentialStatus) string {
	at := ""
	if !c.NextAttempt.IsZero() {
		at = " " + relative(now, c.NextAttempt)
		if c.NextAttempt.Before(now) {
			at = " now"
		}
	}
	step, known := steps[c.Reason]
	switch {
	case !known:
		step = "next step" + atTime + " (" + string(c.Reason) + ")" // of a later version
	case c.Reason == messages.ReasonFresh && c.Kind != messages.AccessToken:
		step = "check" + atTime // WeChat repeats a ticket, so that most attempts find no new value
	}
	return strings.Replace(step, atTime, at, 1)
}

// atTime is the placeholder in steps for the time of the next attempt.
const atTime = " {time}"

// steps are what the worker does next.
var steps = map[messages.Reason]string{
	messages.ReasonFresh:      "refresh" + atTime,
	messages.ReasonBackoff:    "next attempt" + atTime,
	messages.ReasonNoToken:    "waits for the access_token",
	messages.ReasonPaced:      "too many calls, next attempt" + atTime,
	messages.ReasonOthers:     "lost by the bucket; if no worker publishes it again, next attempt" + atTime,
	messages.ReasonForgotten:  "its ledger entry was lost, a worker writes it again",
	messages.ReasonRefused:    "refresh" + atTime,
	messages.ReasonRefreshing: "being refreshed now",

	messages.ReasonDue:           "refresh" + atTime,
	messages.ReasonExpired:       "refresh" + atTime,
	messages.ReasonReported:      "refresh" + atTime,
	messages.ReasonNewSettings:   "refresh with the new settings" + atTime,
	messages.ReasonRetry:         "next attempt" + atTime,
	messages.ReasonUnpublished:   "refresh" + atTime,
	messages.ReasonMissing:       "first attempt" + atTime,
	messages.ReasonLost:          "publish it again" + atTime,
	messages.ReasonNotPermitted:  "next attempt" + atTime,
	messages.ReasonDisconnected:  "next attempt" + atTime,
	messages.ReasonUnwritable:    "next attempt" + atTime,
	messages.ReasonLeaseHeld:     "next attempt" + atTime,
	messages.ReasonInternalError: "next attempt" + atTime,
}

// explanation returns lines that explain what is wrong with a credential and what to do: no lines if nothing
// is wrong. again means that the meaning of the state has just been printed for another credential of the
// account.
func explanation(now time.Time, c messages.CredentialStatus, again bool) (lines []string) {
	for _, s := range states {
		if s.name == c.State && s.means != "" && !again {
			lines = append(lines, s.means)
		}
	}
	if c.Error != "" {
		line := "why: " + c.Error
		if c.RID != "" && !strings.Contains(c.Error, c.RID) {
			line += " (rid " + c.RID + ")"
		}
		lines = append(lines, line)
	}
	if !c.HinderedSince.IsZero() {
		lines = append(lines, "no refresh could be made since: "+relative(now, c.HinderedSince))
	}
	if c.Attempts > 0 {
		lines = append(lines, fmt.Sprintf("attempts: %d failed in a row, the last %s", c.Attempts,
			relative(now, c.LastAttempt)))
	}
	if c.Conflicts > 0 {
		line := "conflicts: WeChat refused the value long before its expiry " + times(c.Conflicts)
		if !c.LastConflict.IsZero() {
			line += ", last conflict " + relative(now, c.LastConflict)
		}
		lines = append(lines, line)
	}
	if c.Advice != "" {
		lines = append(lines, "do: "+c.Advice)
	}
	return lines
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// summary is the last line, which stays visible above the prompt.
func summary(st messages.Status) string {
	total := 0
	var parts []string
	for _, s := range states {
		if n := st.Summary[s.name]; n > 0 {
			total += n
			parts = append(parts, fmt.Sprintf("%d %s", n, s.name))
		}
	}
	accounts := map[string]bool{} // of one account, the reply also has the number of all accounts
	for _, c := range st.Credentials {
		accounts[c.AppID] = true
	}
	n := len(accounts)
	if st.Truncated || n == 0 {
		n = st.Accounts
	}
	line := fmt.Sprintf("%s, %s", count(n, "account"), count(total, "credential"))
	if len(parts) > 0 {
		line += ": " + strings.Join(parts, ", ")
	}
	if st.Truncated {
		line += fmt.Sprintf(" (the %d most urgent are listed; --appid shows one account)", len(st.Credentials))
	}
	return line + fmt.Sprintf("; worker %s, version %s", st.Worker, st.Version)
}
