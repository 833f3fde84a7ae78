package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
)

// wipe overwrites the value of a variable, given as name=value, in the environment with which the kernel started this
// process. Unsetenv changes only the copy of the Go runtime.
func wipe(variable string) error {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	// The second field is the name of the program in parentheses, which may contain spaces. The environment begins and
	// ends at the addresses in the fields 50 and 51: proc_pid_stat(5).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 49 {
		return errors.New("/proc/self/stat has no address of the environment")
	}
	var begin, end int64
	if _, err := fmt.Sscan(fields[47]+" "+fields[48], &begin, &end); err != nil || begin == 0 || end <= begin {
		return errors.New("/proc/self/stat has no address of the environment")
	}
	mem, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	block := make([]byte, 1+end-begin) // the first byte is a zero before the first variable
	wanted := []byte("\x00" + variable + "\x00")
	defer clear(block)
	defer clear(wanted)
	if _, err := mem.ReadAt(block[1:], begin); err != nil {
		return err
	}
	at := bytes.Index(block, wanted)
	if at < 0 {
		return nil // it was set later, or is wiped
	}
	name, value, _ := strings.Cut(variable, "=")
	_, err = mem.WriteAt(make([]byte, len(value)), begin+int64(at+len(name)+1))
	return err
}
