package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// describe returns what stands above the table: the command, the versions and the machine.
func (r *runner) describe(ctx context.Context, args []string, took time.Duration) (string, error) {
	command := "make bench-peers"
	if flags := ownFlags(args); flags != "" {
		command += " PEERS_FLAGS='" + flags + "'"
	}
	versions := []string{"Go " + strings.TrimPrefix(runtime.Version(), "go")}
	for _, v := range []struct{ file, arg, before string }{
		{r.bins.wxkeeper, "version", ""}, {r.bins.nats, "--version", ""}, {r.bins.redis, "--version", ""},
	} {
		if v.file == "" {
			continue
		}
		out, err := exec.CommandContext(ctx, v.file, v.arg).Output() //nolint:gosec // the programs of the command line
		if err != nil {
			return "", fmt.Errorf("%s %s: %w", v.file, v.arg, err)
		}
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		line, _, _ = strings.Cut(line, " sha=") // the rest of Redis's line is not a version
		versions = append(versions, line)
	}
	const sdk = "github.com/silenceper/wechat/v2"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == sdk {
				versions = append(versions, sdk+" "+m.Version)
			}
		}
	}
	return fmt.Sprintf("- Command: `%s`; it took %s.\n- Repeats: %d (row (g): rounds). A ratio is one within a repeat.\n"+
		"- Versions: %s.\n- Machine: %d cores (%s), %s, Linux %s.\n"+
		"- Cores busy, with everything that runs here: %s. Above 90 %% calls fail that nothing else makes fail.\n",
		command, took.Round(time.Second), r.repeats, strings.Join(versions, "; "),
		runtime.NumCPU(), processor(), memory(), kernel(), strings.Join(slices.Sorted(slices.Values(r.busyCores)), ", ")), nil
}

// ownFlags leaves out the paths that the Makefile adds.
func ownFlags(args []string) string {
	var flags []string
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "-wxkeeper", "-nats-server":
			i++
		default:
			flags = append(flags, args[i])
		}
	}
	return strings.Join(flags, " ")
}

func processor() string { return valueIn("/proc/cpuinfo", "model name") }

func memory() string {
	kib, err := strconv.Atoi(strings.TrimSuffix(valueIn("/proc/meminfo", "MemTotal"), " kB"))
	if err != nil {
		return "unknown memory"
	}
	return fmt.Sprintf("%d GiB of memory", kib>>20)
}

// valueIn returns the value of the first line "name : value" of a file in /proc.
func valueIn(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func kernel() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}
