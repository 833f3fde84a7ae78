package config

import (
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"time"

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

// variables returns all variables of c, in the order of Config.
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

// text is the value in the form that the variable has. Secrets are masked.
func (v variable) text() string {
	switch value := v.value.Interface().(type) {
	case []string:
		return strings.Join(value, ",")
	case time.Duration:
		return strings.Replace(strings.Replace(value.String(), "m0s", "m", 1), "h0m", "h", 1)
	default:
		return fmt.Sprint(value)
	}
}

// mayHavePassword reports whether v is a URL that may contain a user and a password.
func (v variable) mayHavePassword() bool { return v.Tag.Get("userinfo") != "" }

// Table lists every variable, in the order of Config. Of the numbered accounts it lists the first.
func Table() []Row {
	c := Defaults()
	c.Numbered = make([]entry, 1)
	var rows []Row
	for _, v := range c.variables() {
		r := Row{Name: v.name, Default: v.text(), Meaning: v.Tag.Get("help")}
		if lo := v.Tag.Get("min"); lo != "" {
			r.Meaning += fmt.Sprintf(" (%s to %s)", lo, v.Tag.Get("max"))
		}
		if v.Type == reflect.TypeFor[redact.Secret]() {
			r.Default = "" // an empty secret is masked too
		}
		rows = append(rows, r)
	}
	return rows
}

// Markdown is Table in the form that the README has.
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
	for _, v := range c.variables() {
		if v.value.IsZero() {
			continue
		}
		shown := v.text()
		if v.mayHavePassword() {
			shown = redact.URLs(shown)
		}
		attrs = append(attrs, slog.String(v.name, shown))
	}
	return slog.GroupValue(attrs...)
}

// String is LogValue as text.
func (c Config) String() string { return c.LogValue().String() }

// GoString is String, because URLs may contain a password.
func (c Config) GoString() string { return c.String() }
