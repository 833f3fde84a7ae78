// Package buildinfo returns the version and the commit of the wxkeeper that is running.
package buildinfo

import (
	"cmp"
	"fmt"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
)

const module = "github.com/wxkeeper/wxkeeper"

// fallback is the version of a build that records none, for example of `go test` and `go run`.
const fallback = "0.0.0-dev"

// The linker sets them (-X) in a build that has no git data, see the Dockerfile. They are empty in any other build.
var (
	linkedVersion string
	linkedCommit  string
)

// semVer is the pattern of semver.org, without its groups. NATS micro refuses a service with any other version.
var semVer = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?` +
	`(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)

// pseudoVersion matches the time and the commit at the end of a version that is no tag
// (go.dev/ref/mod#pseudo-versions).
var pseudoVersion = regexp.MustCompile(`[-.]\d{14}-([0-9a-f]{12})(\+[0-9a-zA-Z.-]+)?$`)

// Version returns the version as SemVer, without the leading v: a tag, a pseudo-version with the commit, or 0.0.0-dev
// if the build recorded no version.
func Version() string { return read().version }

// String returns one line for people: `wxkeeper 1.2.3 go1.26.8 linux/amd64 commit <commit>`. Scripts may rely on the
// order of its words. The commit is left out if the build recorded none.
func String() string { return read().String() }

// info is the version, and the git commit: 40 hexadecimal digits, or the first 12 if only a pseudo-version records it.
// The commit is empty if the build recorded none.
type info struct{ version, commit string }

func read() info {
	bi, _ := debug.ReadBuildInfo()
	return infoOf(cmp.Or(bi, new(debug.BuildInfo)), linkedVersion, linkedCommit)
}

func infoOf(bi *debug.BuildInfo, version, commit string) info {
	var recorded string
	if bi.Main.Path == module {
		recorded = bi.Main.Version
		for _, s := range bi.Settings {
			if s.Key == "vcs.revision" && commit == "" {
				commit = s.Value
			}
		}
	}
	for _, d := range bi.Deps { // wxkeeper is a part of another program: the git data is that program's
		if d.Path == module {
			recorded = d.Version
		}
	}
	if commit == "" {
		if g := pseudoVersion.FindStringSubmatch(recorded); g != nil {
			commit = g[1]
		}
	}
	for _, v := range []string{version, recorded} {
		if v = strings.TrimPrefix(v, "v"); semVer.MatchString(v) {
			return info{v, commit}
		}
	}
	return info{fallback, commit}
}

func (i info) String() string {
	line := fmt.Sprintf("wxkeeper %s %s %s/%s", i.version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if i.commit != "" {
		line += " commit " + i.commit
	}
	return line
}
