package kv

import (
	"os/exec"
	"regexp"
	"strconv"
	"testing"
)

// Reading a handle costs a few atomic loads. A large stack frame would cost more than all that Value does: it had one
// of 512 bytes when the compiler inlined what Value calls in the rare case.
func TestHandleValueHasASmallFrame(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "build", "-gcflags=-S", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := regexp.MustCompile(`kv\.\(\*Handle\)\.Value STEXT .*locals=(0x[0-9a-f]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatal("the compiler does not list the frame of Value")
	}
	if n, err := strconv.ParseUint(string(m[1]), 0, 32); err != nil || n > 64 {
		t.Errorf("the frame of Value has %s bytes (%v), want at most 64", m[1], err)
	}
}
