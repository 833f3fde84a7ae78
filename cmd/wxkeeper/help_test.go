package main

import (
	"maps"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// helpOf returns what a verb prints with --help.
func helpOf(t *testing.T, verb string) string {
	t.Helper()
	term, out, _ := screen(false)
	parser, err := newParser(term, func(int) { panic("exit") })
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }() // kong expects that exit does not return
		_, _ = parser.Parse([]string{verb, "--help"})
	}()
	return out.String()
}

func TestHelpOfEveryVerbHasAnExample(t *testing.T) {
	t.Parallel()
	term, _, _ := screen(false)
	parser, err := newParser(term, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, leaf := range parser.Model.Leaves(false) {
		names = append(names, leaf.Name)
		help := helpOf(t, leaf.Name)
		_, examples, found := strings.Cut(help, "Example")
		if !found || !strings.Contains(examples, "wxkeeper "+leaf.Name) {
			t.Errorf("the help of %s has no example:\n%s", leaf.Name, help)
		}
		if !strings.HasSuffix(strings.TrimSpace(leaf.Help), ".") {
			t.Errorf("the line about %s does not end with a full stop: %q", leaf.Name, leaf.Help)
		}
	}
	if d := cmp.Diff(verbNames, names); d != "" {
		t.Errorf("verbs: -want +got\n%s", d)
	}
}

var verbNames = []string{"run", "demo", "simulate", "get", "watch", "resolve", "refresh", "status", "check", "health",
	"permissions", "env", "nats-env", "version"}

// No test runs the examples, but they must parse.
func TestExamplesOfTheHelpParse(t *testing.T) {
	t.Parallel()
	for _, verb := range verbNames {
		_, examples, _ := strings.Cut(helpOf(t, verb), "Example")
		examples, _, _ = strings.Cut(examples, "\nFlags:")
		for line := range strings.Lines(examples) {
			_, args, ok := strings.Cut(line, "wxkeeper ")
			if !ok || strings.Contains(line, "curl") {
				continue
			}
			args, _, _ = strings.Cut(args, " <")
			args, _, _ = strings.Cut(args, " >")
			args, _, _ = strings.Cut(args, " $(")
			args = strings.TrimRight(strings.TrimSpace(args), `)"`)
			term, _, _ := screen(false)
			parser, err := newParser(term, func(int) {})
			if err != nil {
				t.Fatal(err)
			}
			fields := strings.Fields(args)
			if slices.Contains(fields, "--value-sha256") {
				fields = append(fields, "00")
			}
			if _, err := parser.Parse(fields); err != nil {
				t.Errorf("%s: %q: %v", verb, strings.TrimSpace(line), err)
			}
		}
	}
}

// The help of simulate names the calls that the control API has: all of them, and no others.
func TestHelpOfSimulateNamesTheControlAPI(t *testing.T) {
	t.Parallel()
	rec := httptest.NewRecorder()
	wechattest.New(wechattest.Config{}).Control().ServeHTTP(rec, httptest.NewRequest("GET", "http://c/", nil))
	exist := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^curl .*http://c(/\S+?)(?:/wx1)?$`).
		FindAllStringSubmatch(rec.Body.String(), -1) {
		exist[m[1]] = true
	}
	help := strings.Join(strings.Fields(helpOf(t, "simulate")), " ")
	_, sentence, _ := strings.Cut(help, "The control API has ")
	sentence, _, _ = strings.Cut(sentence, ";")
	named := map[string]bool{}
	for _, path := range regexp.MustCompile(`/[a-z/-]+`).FindAllString(sentence, -1) {
		named[path] = true
	}
	if len(exist) < 10 || !maps.Equal(exist, named) {
		t.Errorf("the help names %v, the control API has %v", named, exist)
	}
}

func TestEnvListsEveryVariable(t *testing.T) {
	t.Parallel()
	term, out, _ := screen(false)
	if err := new(envVerb).Run(term); err != nil {
		t.Fatal(err)
	}
	for _, r := range config.Table() {
		heading := r.Name
		if r.Default != "" {
			heading += "  (" + r.Default + ")"
		}
		if !strings.Contains("\n"+out.String(), "\n"+heading+"\n    ") {
			t.Errorf("no %q in\n%s", heading, out.String())
		}
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > 110 {
			t.Errorf("a long line: %q", line)
		}
	}
}
