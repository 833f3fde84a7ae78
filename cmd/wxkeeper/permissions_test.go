package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/permissions"
)

// ofDocs returns the lists that docs/permissions.md shows, by the arguments of the verb above each list.
func ofDocs(t *testing.T) map[string]string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/permissions.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)\n    wxkeeper permissions ([^\n]*)\n\n```conf\n(.*?)```\n").
		FindAllStringSubmatch(string(doc), -1) {
		blocks[m[1]] = m[2]
	}
	return blocks
}

func TestSecurityShowsEachListAsItIsPrinted(t *testing.T) {
	t.Parallel()
	blocks := ofDocs(t)
	shown := map[string]bool{}
	for args, block := range blocks {
		term, out, errs := screen(false)
		parser, err := newParser(term, func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		k, err := parser.Parse(append([]string{"permissions"}, strings.Fields(args)...))
		if err != nil {
			t.Fatalf("%s: %v", args, err)
		}
		v := k.Model.Target.Addr().Interface().(*verbs).Permissions
		text, err := v.text(config.Config{SubjectPrefix: "wechat", Bucket: "wechat"})
		if err != nil || text != block {
			t.Errorf("wxkeeper permissions %s prints (%v %s%s)\n%s", args, err, out, errs, text)
		}
		for _, kind := range v.Kind {
			shown[kind] = true
		}
	}
	for _, r := range permissions.Roles {
		if !shown[string(r)] {
			t.Errorf("docs/permissions.md does not show the list of a %s", r)
		}
	}
	if !shown[kindAccounts] {
		t.Error("docs/permissions.md does not show the two accounts")
	}
}

// Every test that docs/permissions.md names exists.
func TestSecurityNamesRealTests(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/permissions.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(string(doc), -1)
	if len(named) < 5 {
		t.Errorf("docs/permissions.md names %d tests", len(named))
	}
	there := declaredTests(t)
	for _, m := range named {
		if !there[m[1]] {
			t.Errorf("docs/permissions.md names %s, which does not exist", m[1])
		}
	}
}
