package config

import (
	"os"
	"strings"
	"testing"
)

func TestReadmeHasTheTableOfVariables(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), strings.TrimSpace(Markdown())) {
		t.Errorf("README.md does not have the table that `wxkeeper env --markdown` prints:\n%s", Markdown())
	}
}
