package buildinfo

import (
	"os"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const commit = "abcdef0123456789abcdef0123456789abcdef01"

func TestVersionIsAlwaysSemVer(t *testing.T) {
	t.Parallel()
	if v := Version(); !semVer.MatchString(v) {
		t.Errorf("Version() = %q", v)
	}
}

func TestVersionAndCommitAreWhatTheBuildRecorded(t *testing.T) {
	t.Parallel()
	git := []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: commit}}
	build := func(path, version string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Path: path, Version: version}, Settings: settings}
	}
	inShop := func(version string) *debug.BuildInfo {
		bi := build("example.com/shop", "v9.9.9", git...)
		bi.Deps = []*debug.Module{{Path: module, Version: version}}
		return bi
	}
	type linked struct{ version, commit string }
	for name, tt := range map[string]struct {
		build  *debug.BuildInfo
		linked linked
		want   info
	}{
		"a tag, built in a clone":      {build(module, "v1.2.3", git...), linked{}, info{"1.2.3", commit}},
		"a tag, installed as a module": {build(module, "v1.2.3"), linked{}, info{"1.2.3", ""}},
		"a commit, built in a clone": {
			build(module, "v0.0.0-20260102030405-abcdef012345+dirty", git...), linked{},
			info{"0.0.0-20260102030405-abcdef012345+dirty", commit},
		},
		"a commit, installed as a module": {
			build(module, "v1.2.4-0.20260102030405-abcdef012345"), linked{},
			info{"1.2.4-0.20260102030405-abcdef012345", "abcdef012345"},
		},
		"a commit after a pre-release": {
			build(module, "v1.2.3-rc.1.0.20260102030405-abcdef012345"), linked{},
			info{"1.2.3-rc.1.0.20260102030405-abcdef012345", "abcdef012345"},
		},
		"nothing":                   {build("", ""), linked{}, info{fallback, ""}},
		"go run":                    {build(module, "(devel)"), linked{}, info{fallback, ""}},
		"a version that no tag has": {build(module, "v1.2"), linked{}, info{fallback, ""}},
		"another program":           {build("example.com/shop", "v9.9.9", git...), linked{}, info{fallback, ""}},
		"a tag in another program":  {inShop("v1.2.3"), linked{}, info{"1.2.3", ""}},
		"a commit in another program": {
			inShop("v0.0.0-20260102030405-abcdef012345"), linked{},
			info{"0.0.0-20260102030405-abcdef012345", "abcdef012345"},
		},
		"an image":                         {build(module, "(devel)"), linked{"1.2.3", commit}, info{"1.2.3", commit}},
		"an image, with the v of the tag":  {build(module, "(devel)"), linked{"v1.2.3", ""}, info{"1.2.3", ""}},
		"an image, with a broken argument": {build(module, "(devel)"), linked{"main", ""}, info{fallback, ""}},
	} {
		got := infoOf(tt.build, tt.linked.version, tt.linked.commit)
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(info{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestStringNamesTheCommitOnlyIfItIsKnown(t *testing.T) {
	t.Parallel()
	known, unknown := info{"1.2.3", "abc"}.String(), info{"1.2.3", ""}.String()
	if !strings.HasPrefix(known, "wxkeeper 1.2.3 go") || !strings.HasSuffix(known, " commit abc") {
		t.Errorf("with a commit: %q", known)
	}
	if strings.Contains(unknown, "commit") {
		t.Errorf("without a commit: %q", unknown)
	}
}

// The linker ignores the name of a variable that does not exist, without an error.
func TestDockerfileSetsVariablesThatExist(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, g := range regexp.MustCompile(`-X "?([\w./]+)=`).FindAllStringSubmatch(string(file), -1) {
		got = append(got, g[1])
	}
	pkg := module + "/internal/buildinfo."
	if diff := cmp.Diff([]string{pkg + "linkedVersion", pkg + "linkedCommit"}, got); diff != "" {
		t.Errorf("-X in the Dockerfile (-want +got):\n%s", diff)
	}
}
