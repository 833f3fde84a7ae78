package embedded_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"

	"github.com/wxkeeper/wxkeeper/internal/embedded"
)

// helperVerb is the argument with which inAnotherProcess starts the test binary.
const helperVerb = "start-embedded-server"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == helperVerb {
		s, err := embedded.Start(context.Background(), embedded.Config{Listen: os.Args[2], DataDir: os.Args[3]})
		if err != nil {
			fmt.Print(err)
			return
		}
		s.Shutdown()
		fmt.Print("started")
		return
	}
	goleak.VerifyTestMain(m)
}

// inAnotherProcess starts a server in another process, and returns its error or "started".
func inAnotherProcess(t *testing.T, listen, dir string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, exe, helperVerb, listen, dir).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}
