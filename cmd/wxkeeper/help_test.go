package main

import (
	"bytes"
	"maps"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// helpOf is what a verb prints for --help.
func helpOf(t *testing.T, verb string) string {
	t.Helper()
	var out bytes.Buffer
	parser, err := newParser(&terminal{out: &out, err: &out}, func(int) { panic("exit") })
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }() // kong calls exit and expects not to come back
		_, _ = parser.Parse([]string{verb, "--help"})
	}()
	return out.String()
}

func TestHelpOfEveryVerbHasAnExample(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(new(verbs))
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
			t.Errorf("the line about %s is no sentence: %q", leaf.Name, leaf.Help)
		}
	}
	want := []string{"run", "demo", "simulate", "get", "watch", "resolve", "refresh", "status", "check", "health", "permissions", "env", "version"}
	if !slices.Equal(names, want) {
		t.Errorf("verbs %v, want %v", names, want)
	}
}

// The examples are run by nobody: at least they must parse.
func TestExamplesOfTheHelpParse(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"run", "demo", "simulate", "get", "watch", "resolve", "refresh", "status", "check", "health", "permissions", "env", "version"} {
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
			args = strings.TrimRight(strings.TrimSpace(args), ")")
			parser, err := newParser(&terminal{out: new(bytes.Buffer), err: new(bytes.Buffer)}, func(int) {})
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

// The help of simulate names the calls of the control API: all, and none that is not there.
func TestHelpOfSimulateNamesTheControlAPI(t *testing.T) {
	t.Parallel()
	rec := httptest.NewRecorder()
	wechattest.New(wechattest.Config{}).Control().ServeHTTP(rec, httptest.NewRequest("GET", "http://c/", nil))
	there := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^curl .*http://c(/\S+?)(?:/wx1)?$`).FindAllStringSubmatch(rec.Body.String(), -1) {
		there[m[1]] = true
	}
	help := strings.Join(strings.Fields(helpOf(t, "simulate")), " ")
	_, sentence, _ := strings.Cut(help, "The control API has ")
	sentence, _, _ = strings.Cut(sentence, ";")
	named := map[string]bool{}
	for _, path := range regexp.MustCompile(`/[a-z/-]+`).FindAllString(sentence, -1) {
		named[path] = true
	}
	if len(there) < 10 || !maps.Equal(there, named) {
		t.Errorf("the help names %v, the control API has %v", named, there)
	}
}

func TestEnvListsEveryVariable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := new(envVerb).Run(&terminal{out: &out}); err != nil {
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
