package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that docs/reliability.md names exists, and the document names every property of the policy.
func TestReliabilityNamesRealTests(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	declared := declaredTests(t)
	properties := declaredIn(t, func(path string) bool { return filepath.Base(path) == "fleet_property_test.go" })
	named := map[string]bool{}
	for _, g := range regexp.MustCompile("`((?:Test|Benchmark)\\w+)`").FindAllStringSubmatch(string(doc), -1) {
		named[g[1]] = true
		if !declared[g[1]] {
			t.Errorf("docs/reliability.md names %s, which does not exist", g[1])
		}
	}
	if len(properties) < 7 {
		t.Errorf("the properties of the policy are %q", properties)
	}
	for _, p := range properties {
		if !named[p] {
			t.Errorf("docs/reliability.md does not name %s", p)
		}
	}
}

// declaredTests returns the names of all tests and benchmarks.
func declaredTests(t *testing.T) map[string]bool {
	t.Helper()
	declared := map[string]bool{}
	for _, name := range declaredIn(t, func(string) bool { return true }) {
		declared[name] = true
	}
	return declared
}

// declaredIn returns the names of the tests and benchmarks in the files for which isIncluded returns true.
func declaredIn(t *testing.T, isIncluded func(path string) bool) (names []string) {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Benchmark)\w+)\(`)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") || !isIncluded(path) {
			return err
		}
		source, err := os.ReadFile(path)
		for _, g := range declared.FindAllStringSubmatch(string(source), -1) {
			names = append(names, g[1])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
