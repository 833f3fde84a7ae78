//go:build linux

package worker

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"
)

// copiesInMemory counts how often a text is in the memory of this process.
func copiesInMemory(t *testing.T, text []byte) (n int) {
	t.Helper()
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Skip(err)
	}
	defer maps.Close()
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Skip(err)
	}
	defer mem.Close()
	buf := make([]byte, 1<<20) // it has copies too, of what was read
	first := int64(uintptr(unsafe.Pointer(&buf[0])))
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var begin, end int64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &begin, &end, &mode); err != nil ||
			!strings.HasPrefix(mode, "rw") {
			continue
		}
		for at := begin; at < end; at += int64(len(buf) - len(text)) { // parts overlap
			part := buf[:min(int64(len(buf)), end-at)]
			if _, err := mem.ReadAt(part, at); err != nil {
				break // reserved, but not in use
			}
			for i := 0; ; {
				j := bytes.Index(part[i:], text)
				if j < 0 {
					break
				}
				if where := at + int64(i+j); where < first || where >= first+int64(len(buf)) {
					n++
				}
				i += j + 1
			}
		}
	}
	return n
}

// Each plan needs the fingerprint of its account. Every fingerprint left a copy of the AppSecret in the memory.
func TestFingerprintLeavesNoCopyOfTheSecret(t *testing.T) {
	t.Parallel()
	if raceEnabled {
		t.Skip("the race detector maps too much memory")
	}
	secret := rand.Text() + rand.Text()
	a := Account{AppID: "wx0123456789abcdef", Secret: Secret(secret), TokenAPI: "stable_token"}
	before := copiesInMemory(t, []byte(secret))
	for range 1000 {
		a.fingerprint()
	}
	if after := copiesInMemory(t, []byte(secret)); after > before+2 {
		t.Errorf("%d copies of the secret before, %d after", before, after)
	}
}
