package main

import (
	"io"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/safetext"
)

type envVerb struct {
	Markdown bool `help:"Print the table in the form that the README has."`
}

func (envVerb) Help() string {
	return `An empty variable counts as not set. The NATS variables have the names that the nats command uses. Verbs
that send a request to a worker use only the NATS variables, WXKEEPER_SUBJECT_PREFIX, WXKEEPER_BUCKET and
WECHAT_APPID.

Example:

    wxkeeper env --markdown
`
}

func (v *envVerb) Run(t *terminal) error {
	if v.Markdown {
		_, err := io.WriteString(t.out, config.Markdown())
		return err
	}
	for _, r := range config.Table() {
		line := r.Name
		if r.Default != "" {
			line += "  (" + r.Default + ")"
		}
		safetext.Fprintf(t.out, "%s\n", line)
		for _, text := range wrap(r.Meaning, 96) {
			safetext.Fprintf(t.out, "    %s\n", text)
		}
	}
	return nil
}

// wrap breaks a text between words into lines of at most width characters.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > width:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
