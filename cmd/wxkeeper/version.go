package main

import (
	"fmt"
	"runtime"

	"github.com/wxkeeper/wxkeeper/internal/buildinfo"
)

type versionVerb struct{}

func (versionVerb) Help() string {
	return `Example:

    wxkeeper version
`
}

func (versionVerb) Run(t *terminal) error {
	_, err := fmt.Fprintln(t.out, version())
	return err
}

// version is also what --version prints.
func version() string {
	return fmt.Sprintf("wxkeeper %s %s %s/%s", buildinfo.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
