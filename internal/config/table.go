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

// variable is a field of Config, or of one of its numbered accounts.
type variable struct {
	reflect.StructField
	name  string
	value reflect.Value
}

// variables are all that c has, in the order of Config.
func (c *Config) variables() []variable { return variables("", reflect.ValueOf(c).Elem()) }

func variables(prefix string, v reflect.Value) (all []variable) {
	for _, f := range reflect.VisibleFields(v.Type()) {
		fv := v.FieldByIndex(f.Index)
		if f.Type != reflect.TypeFor[[]entry]() {
			all = append(all, variable{f, prefix + f.Tag.Get("env"), fv})
			continue
		}
		for i := range fv.Len() {
			all = append(all, variables(numbered(i), fv.Index(i))...)
		}
	}
	return all
}

// Table lists every variable, in the order of Config; of the numbered accounts the first.
func Table() []Row {
	var rows []Row
	for _, f := range (&Config{Numbered: make([]entry, 1)}).variables() {
		r := Row{Name: f.name, Default: f.Tag.Get("envDefault"), Meaning: f.Tag.Get("help")}
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
	for _, f := range c.variables() {
		if f.value.IsZero() {
			continue
		}
		shown := fmt.Sprint(f.value.Interface())
		switch {
		case f.Tag.Get("secret") != "":
			shown = "***"
		case f.Name == "NATSURL": // the one other field that can hold a password
			shown = redact.URLs(shown)
		}
		attrs = append(attrs, slog.String(f.name, shown))
	}
	return slog.GroupValue(attrs...)
}

// String is LogValue as text.
func (c Config) String() string { return c.LogValue().String() }

// GoString is String: %#v shows no secret either.
func (c Config) GoString() string { return c.String() }
