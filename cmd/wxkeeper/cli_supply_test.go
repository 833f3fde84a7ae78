//go:build cli

package main

import (
	"debug/buildinfo"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// makeIn runs make in a directory, with programs found in bin first.
func makeIn(t *testing.T, dir, bin string, args ...string) (output string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "make", append([]string{"--no-print-directory"}, args...)...)
	cmd.Dir = dir
	for _, v := range cmd.Environ() {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			v = "PATH=" + bin + string(filepath.ListSeparator) + path
		}
		if !strings.HasPrefix(v, "MAKE") && !strings.HasPrefix(v, "MFLAGS") { // of the make that runs this test
			cmd.Env = append(cmd.Env, v)
		}
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// A list that lacks a module hides the vulnerabilities of that module.
func TestSBOMListsEveryModuleOfTheBinary(t *testing.T) {
	t.Parallel()
	if out, err := makeIn(t, "../..", ".", "sbom"); err != nil {
		t.Fatalf("make sbom: %v\n%s", err, out)
	}
	binary, err := buildinfo.ReadFile("../../bin/wxkeeper")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"std " + strings.TrimPrefix(binary.GoVersion, "go")}
	for _, m := range binary.Deps {
		want = append(want, m.Path+" "+m.Version)
	}
	text, err := os.ReadFile("../../bin/wxkeeper.cdx.json")
	if err != nil {
		t.Fatal(err)
	}
	type component struct{ Name, Version string }
	var bom struct {
		BOMFormat  string
		Metadata   struct{ Component component }
		Components []component
	}
	if err := json.Unmarshal(text, &bom); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range bom.Components {
		got = append(got, c.Name+" "+strings.TrimPrefix(c.Version, "go"))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modules (-binary +SBOM):\n%s", diff)
	}
	if !slices.ContainsFunc(got, func(m string) bool { return strings.HasPrefix(m, "github.com/nats-io/nats.go v") }) {
		t.Error("the SBOM does not list nats.go")
	}
	if name := bom.Metadata.Component.Name; bom.BOMFormat != "CycloneDX" || name != "github.com/wxkeeper/wxkeeper" {
		t.Errorf("the file is the %s SBOM of %s", bom.BOMFormat, name)
	}
	if v := bom.Metadata.Component.Version; !regexp.MustCompile(`^v\d+\.\d+\.\d+`).MatchString(v) {
		t.Errorf("the SBOM is of version %q", v)
	}
}

// A registry is not reached from every machine that runs this test, so a program that answers like docker stands in
// for it.
func TestPinImagesWritesTheDigestOfEveryImage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := []string{"Makefile", "Dockerfile", "docker-compose.yml", "deploy/nats/compose.yml"}
	if err := os.MkdirAll(filepath.Join(dir, "deploy", "nats"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile("../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		text = regexp.MustCompile(`@sha256:[0-9a-f]{64}`).ReplaceAll(text, nil)
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := makeIn(t, dir, dir, "check-images"); err == nil || !strings.Contains(out, "make pin-images") {
		t.Errorf("make check-images of images without digests: %v\n%s", err, out)
	}
	answer := func(digest string) {
		t.Helper()
		script := `#!/bin/sh
case "$*" in
"buildx imagetools inspect --format {{.Manifest.Digest}} nats:"* | *" golang:"*) echo ` + digest + ` ;;
*) echo "unexpected: $*" >&2; exit 1 ;;
esac
`
		if err := os.WriteFile(filepath.Join(dir, "docker"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	first, second := "sha256:"+strings.Repeat("0a", 32), "sha256:"+strings.Repeat("1b", 32)
	for _, digest := range []string{first, second} { // the second time the files have digests
		answer(digest)
		if out, err := makeIn(t, dir, dir, "pin-images", "check-images"); err != nil {
			t.Fatalf("make pin-images check-images: %v\n%s", err, out)
		}
		for _, name := range files[1:] {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if got := regexp.MustCompile(`@[^\s}]+`).FindAllString(string(text), -1); !slices.Contains(got, "@"+digest) {
				t.Errorf("%s has the digests %q, want %s", name, got, digest)
			}
		}
	}
	answer("none")
	if out, err := makeIn(t, dir, dir, "pin-images"); err == nil {
		t.Errorf("make pin-images has accepted an answer that is no digest:\n%s", out)
	}
}
