package main

import (
	"github.com/wxkeeper/wxkeeper/internal/buildinfo"
	"github.com/wxkeeper/wxkeeper/internal/safetext"
)

type versionVerb struct{}

func (versionVerb) Help() string {
	return `Prints the version, the Go version, the system, and the git commit if the build recorded it.
0.0.0-dev: the build recorded no version.

Example:

    wxkeeper version
`
}

func (versionVerb) Run(t *terminal) error {
	_, err := safetext.Fprintf(t.out, "%s\n", buildinfo.String())
	return err
}
