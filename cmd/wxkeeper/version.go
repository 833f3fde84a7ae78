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
	_, err := fmt.Fprintf(t.out, "wxkeeper %s %s %s/%s\n", buildinfo.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
