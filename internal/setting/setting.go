// Package setting has the error for a wrong environment variable. The verbs end with exit code 2 when they
// return one.
//
// internal/config finds most of these errors. internal/natsconn and internal/embedded find others only when
// they read a file or open a port, and name the variable too.
package setting

import (
	"fmt"
	"regexp"
)

// Error is the error of a variable that is set to something that cannot be used, or is missing. It never
// shows a secret.
type Error struct {
	Variable string // its name; if several variables contradict each other: their names, with commas
	Err      error  // what is wrong, and what would be right
}

// Errorf returns an *Error.
func Errorf(variable, format string, args ...any) error {
	return &Error{variable, fmt.Errorf(format, args...)}
}

// secret matches what has the form of an AppSecret. Nothing that a variable should have looks like that, and people do
// put an AppSecret into the wrong variable.
var secret = regexp.MustCompile(`\b[0-9A-Fa-f]{32}\b`)

func (e *Error) Error() string {
	return e.Variable + ": " + secret.ReplaceAllString(e.Err.Error(), "***")
}

func (e *Error) Unwrap() error { return e.Err }
