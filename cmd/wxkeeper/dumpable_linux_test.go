package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// A debugger, a core dump or /proc/PID/environ would show the AppSecrets to every process of the user. The test runs
// itself as another process, because the setting is for the whole process.
func TestRunClosesItsMemory(t *testing.T) {
	t.Parallel()
	const inside = "TEST_INSIDE"
	if _, ok := os.LookupEnv(inside); ok { //nolint:forbidigo // the test is about the environment
		term, _, errs := screen(false)
		code := execute(t.Context(), term, []string{"run"}) // it fails after it has closed its memory
		dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		secret := os.Getenv("WECHAT_SECRET") //nolint:forbidigo // the test is about the environment
		fmt.Printf("RESULT exit %d, dumpable %d, secret %q, %v, %s", code, dumpable, secret, err, errs)
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for dumpable, want := range map[string]string{"": "dumpable 0", "true": "dumpable 1"} {
		cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$")
		cmd.Env = []string{inside + "=1", "WECHAT_APPID=" + mine, "WECHAT_SECRET=" + canary,
			"WXKEEPER_DUMPABLE=" + dumpable, "WXKEEPER_HTTP_ADDR=192.0.2.1:80", "HOME=" + t.TempDir()}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_, result, _ := strings.Cut(string(out), "RESULT ")
		result, _, _ = strings.Cut(result, ", <nil>")
		if d := cmp.Diff("exit 1, "+want+`, secret ""`, result); d != "" {
			t.Errorf("WXKEEPER_DUMPABLE=%s: -want +got\n%s\n%s", dumpable, d, out)
		}
	}
}
