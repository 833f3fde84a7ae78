package buildinfo

import (
	"runtime/debug"
	"testing"
)

func TestVersionIsAlwaysSemVer(t *testing.T) {
	t.Parallel()
	if v := Version(); !semVer.MatchString(v) {
		t.Errorf("Version() = %q", v)
	}
	main := func(v string) *debug.BuildInfo { return &debug.BuildInfo{Main: debug.Module{Path: module, Version: v}} }
	for want, bi := range map[string]*debug.BuildInfo{
		"1.2.3":                               main("v1.2.3"),
		"1.2.4-0.20260102030405-abcdef012345": main("v1.2.4-0.20260102030405-abcdef012345"),
		"0.0.0-20260102030405-abcdef012345+dirty": main("v0.0.0-20260102030405-abcdef012345+dirty"),
	} {
		if got := version(bi); got != want {
			t.Errorf("version(%q) = %q, want %q", bi.Main.Version, got, want)
		}
	}
	for _, bi := range []*debug.BuildInfo{{}, main(""), main("(devel)"), main("v1.2"), {Main: debug.Module{Path: "example.com/shop", Version: "v9.9.9"}}} {
		if got := version(bi); got != fallback {
			t.Errorf("version(%+v) = %q, want %q", bi.Main, got, fallback)
		}
	}
	dep := &debug.BuildInfo{Main: debug.Module{Path: "example.com/shop", Version: "v9.9.9"}, Deps: []*debug.Module{{Path: module, Version: "v1.2.3"}}}
	if got := version(dep); got != "1.2.3" {
		t.Errorf("as a dependency: %q", got)
	}
}
