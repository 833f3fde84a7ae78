package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wxkeeper/wxkeeper/internal/check"
)

// printed returns what the verb prints of some findings.
func printed(found []check.Finding) string {
	term, out, _ := screen(false)
	printFindings(term, found, summarize(found))
	return out.String()
}

// If there are many accounts, the worst findings are printed, and the number of the others at each level.
func TestCheckListsTheWorstOfManyAccounts(t *testing.T) {
	t.Parallel()
	found := []check.Finding{{Check: check.NATS, Level: check.OK, What: "connected"}}
	for i := range 1000 {
		f := check.Finding{Check: check.Account, Level: check.OK, AppID: fmt.Sprint("wx", i),
			What: fmt.Sprintf("wx%d: fine", i)}
		if i%400 == 399 {
			f.Level, f.What, f.Advice = check.Fail, fmt.Sprintf("wx%d: refused", i), "correct it"
		}
		found = append(found, f)
	}
	found = append(found, check.Finding{Check: check.Clock, Level: check.Warn, What: "behind", Advice: "NTP"})
	text := printed(found)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, want := range map[int]string{
		0: "ok    nats          connected",
		1: "FAIL  account       wx399: refused",
		2: "FAIL  account       wx799: refused", // the advice for both is below
		3: "                    do: correct it",
		4: "ok    account       wx0: fine",
	} {
		if lines[i] != want {
			t.Errorf("line %d is %q, want %q", i, lines[i], want)
		}
	}
	for _, want := range []string{
		"\n                    and 980 accounts more: 980 ok, 0 warnings, 0 failures; --json lists all\nWARN  clock " +
			"        behind\n                    do: NTP\n",
		"\n\n999 ok, 1 warning, 2 failures\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if len(lines) != 27 {
		t.Errorf("%d lines", len(lines))
	}
}

// A text from elsewhere cannot add lines or send escape sequences to the terminal.
func TestCheckPrintsOneLineForAFinding(t *testing.T) {
	t.Parallel()
	text := printed([]check.Finding{{Check: check.Account, Level: check.Warn, What: "a\nb\x1b[31m", Advice: "c\nd"}})
	want := "WARN  account       a\\nb\\x1b[31m\n                    do: c\\nd\n\n0 ok, 1 warning, 0 failures\n"
	if text != want {
		t.Errorf("%q", text)
	}
}

func TestCheckFindsWhichProcessServesTheAddressOfThePages(t *testing.T) {
	worker, another := new(pages), http.NewServeMux()
	other := httptest.NewServer(another)
	t.Cleanup(other.Close)
	ours := httptest.NewServer(worker) // a worker that starts
	t.Cleanup(ours.Close)
	t.Setenv("WXKEEPER_NATS_LISTEN", "127.0.0.1:0")
	t.Setenv("WXKEEPER_DATA_DIR", t.TempDir())
	for addr, want := range map[string]struct {
		failures int // and one more: no account is configured
		text     string
	}{
		ours.Listener.Addr().String(): {0, "\nok    environment   a worker of this environment runs: "},
		other.Listener.Addr().String(): {1,
			"\nFAIL  environment   the worker could not serve its pages: another process listens on " +
				other.Listener.Addr().String() + ": set WXKEEPER_HTTP_ADDR "},
		"127.0.0.1:0": {0, "\n2 ok, 0 warnings, 1 failure\n"},
		"none":        {0, "\n2 ok, 0 warnings, 1 failure\n"},
	} {
		t.Setenv("WXKEEPER_HTTP_ADDR", addr)
		term, out, errs := screen(false)
		if code := execute(t.Context(), term, []string{"check"}); code != exitUsage {
			t.Errorf("%s: exit code %d, want %d: no account is configured", addr, code, exitUsage)
		}
		if n := strings.Count("\n"+out.String(), "\nFAIL"); n != want.failures+1 {
			t.Errorf("%s: %d failures, want %d and the missing account:\n%s", addr, n, want.failures, out)
		}
		if !strings.Contains(out.String(), want.text) {
			t.Errorf("%s: no %q in\n%s", addr, want.text, out)
		}
		if errs.Len() > 0 {
			t.Errorf("%s: standard error: %s", addr, errs)
		}
	}
}
