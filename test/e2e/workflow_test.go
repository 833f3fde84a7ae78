package e2e

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A tag can be moved to another commit; a commit cannot change.
func TestWorkflowsPinEveryActionToACommit(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir("../../.github/workflows")
	if err != nil {
		t.Fatal(err)
	}
	pinned := regexp.MustCompile(`^[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	for _, file := range files {
		text := read(t, ".github/workflows/"+file.Name())
		uses := regexp.MustCompile(`(?m)uses: (.*)$`).FindAllStringSubmatch(text, -1)
		if len(uses) == 0 {
			t.Errorf("%s uses no action", file.Name())
		}
		for _, m := range uses {
			if !pinned.MatchString(m[1]) {
				t.Errorf("%s: not pinned to a commit, with its tag as a comment: %s", file.Name(), m[1])
			}
		}
	}
}

// What passes .ci/run on one machine passes the workflow on another.
func TestWorkflowRunsTheMakeTargetsOfTheCIRun(t *testing.T) {
	t.Parallel()
	script := targets(read(t, ".ci/run"), `(?m)^\s*step .*\bmake ([a-z0-9-]+)`)
	// The targets that need a tool build it.
	script = slices.DeleteFunc(script, func(target string) bool { return target == "tools" })
	workflow := targets(read(t, ".github/workflows/ci.yml"), `(?m)run: make ([a-z0-9-]+)`)
	if len(script) < 10 {
		t.Errorf("only %d targets found in .ci/run: %q", len(script), script)
	}
	if diff := cmp.Diff(script, workflow); diff != "" {
		t.Errorf("targets of the workflow (-.ci/run +workflow):\n%s", diff)
	}
}

// targets returns the first groups of all matches, sorted.
func targets(text, pattern string) (names []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return names
}
