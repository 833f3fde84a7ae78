package config

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/redact"
)

// ForgetSecrets removes the secrets from the environment of this process, after [Load] has read them: from what child
// processes inherit and, on Linux, from the memory that /proc/PID/environ shows. Its error is about the latter.
func ForgetSecrets() error {
	var errs []error
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		if value != "" && holdsSecret(name, value) {
			errs = append(errs, os.Unsetenv(name), wipe(variable))
		}
	}
	return errors.Join(errs...)
}

// holdsSecret reports whether a variable holds a secret itself, and not the name of a file.
func holdsSecret(name, value string) bool {
	if upper := strings.ToUpper(name); slices.Contains(lowerToo[:], upper) {
		name = upper
	}
	name = ofNumbered.ReplaceAllString(name, strings.TrimSuffix(numbered(0), "_"))
	c := Config{Numbered: make([]entry, 1)}
	for _, v := range c.variables() {
		if v.name == name {
			return v.Type == reflect.TypeFor[redact.Secret]() || v.mayHavePassword() && strings.Contains(value, "@")
		}
	}
	return false
}
