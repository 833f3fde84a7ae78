package config

import (
	"fmt"
	"log/slog"
	"reflect"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/redact"
)

// Row describes one variable.
type Row struct {
	Name    string
	Default string // empty: none
	Meaning string
}

// Table lists every variable, in the order of Config.
func Table() []Row {
	var rows []Row
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		r := Row{Name: f.Tag.Get("env"), Default: f.Tag.Get("envDefault"), Meaning: f.Tag.Get("help")}
		if lo := f.Tag.Get("min"); lo != "" {
			r.Meaning += fmt.Sprintf(" (%s to %s)", lo, f.Tag.Get("max"))
		}
		rows = append(rows, r)
	}
	return rows
}

// Markdown is Table as it stands in the README.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| variable | default | meaning |\n|---|---|---|\n")
	for _, r := range Table() {
		def := ""
		if r.Default != "" {
			def = "`" + r.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.Name, def, strings.ReplaceAll(r.Meaning, "|", `\|`))
	}
	return b.String()
}

// LogValue lists the variables that are set, without secrets.
func (c Config) LogValue() slog.Value {
	var attrs []slog.Attr
	v := reflect.ValueOf(c)
	for _, f := range reflect.VisibleFields(v.Type()) {
		fv := v.FieldByIndex(f.Index)
		if fv.IsZero() {
			continue
		}
		shown := fmt.Sprint(fv.Interface())
		switch {
		case f.Tag.Get("secret") != "":
			shown = "***"
		case f.Name == "NATSURL": // the one other field that can hold a password
			shown = redact.URLs(shown)
		}
		attrs = append(attrs, slog.String(f.Tag.Get("env"), shown))
	}
	return slog.GroupValue(attrs...)
}

// String is LogValue as text.
func (c Config) String() string { return c.LogValue().String() }

// GoString is String: %#v shows no secret either.
func (c Config) GoString() string { return c.String() }
