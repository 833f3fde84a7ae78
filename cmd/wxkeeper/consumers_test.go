package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/wxkeeper/wxkeeper/messages"
)

func consumers(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/consumers.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The table is the specification for clients in other languages: it has each error of the contract, and no other.
func TestConsumersHasEachErrorAndWhetherToAskAgain(t *testing.T) {
	t.Parallel()
	text := consumers(t)
	source, err := os.ReadFile("../../messages/errors.go")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\t\w+ +Symbol = "(\w+)"`).FindAllSubmatch(source, -1) {
		symbol := messages.Symbol(m[1])
		again := "no"
		if code := symbol.Code(); code == 429 || code >= 500 {
			again = "yes"
		}
		want[fmt.Sprintf("| `%s` | %d | %s |", symbol, symbol.Code(), again)] = true
	}
	if len(want) < 12 {
		t.Errorf("only %d symbols in messages/errors.go", len(want))
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `\\w+` \\| \\d+ \\| \\w+ \\|").FindAllString(text, -1) {
		if !want[row] {
			t.Errorf("docs/consumers.md has a row that is not of the contract: %s", row)
		}
		delete(want, row)
	}
	for row := range want {
		t.Errorf("docs/consumers.md has no row %s", row)
	}
	for _, word := range []string{
		messages.HeaderError, messages.HeaderErrorCode,
		string(messages.ReasonRefreshed), string(messages.ReasonNotCurrent), string(messages.ReasonAlive),
		string(messages.ReasonUnchanged),
	} {
		if !strings.Contains(text, "`"+word+"`") {
			t.Errorf("docs/consumers.md does not name `%s`", word)
		}
	}
}
