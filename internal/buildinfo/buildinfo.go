// Package buildinfo tells which version of wxkeeper is running.
package buildinfo

import (
	"regexp"
	"runtime/debug"
	"strings"
)

const module = "github.com/wxkeeper/wxkeeper"

// fallback is the version where the build recorded none, for example in a test.
const fallback = "0.0.0-dev"

// semVer is the pattern of semver.org, without its groups. NATS micro refuses a service whose version does not match it.
var semVer = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?` +
	`(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)

// Version returns the version that the Go toolchain stamped into the binary, as SemVer without the leading v.
func Version() string {
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return fallback
	}
	return version(bi)
}

func version(bi *debug.BuildInfo) string {
	v := ""
	if bi.Main.Path == module {
		v = bi.Main.Version
	}
	for _, d := range bi.Deps { // part of somebody else's binary
		if d.Path == module {
			v = d.Version
		}
	}
	if v = strings.TrimPrefix(v, "v"); semVer.MatchString(v) {
		return v
	}
	return fallback
}
