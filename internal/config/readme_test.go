package config

import (
	"os"
	"strings"
	"testing"
)

// The README's table of variables is the one that the code reads.
func TestReadmeHasTheTableOfVariables(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), strings.TrimSpace(Markdown())) {
		t.Errorf("README.md has another table than `wxkeeper env --markdown` prints:\n%s", Markdown())
	}
}
