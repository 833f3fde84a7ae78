package main

import (
	"fmt"
	"go/scanner"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

// Comments and documents cite only what is in the repository: a reader who follows a reference arrives.
func TestEveryReferenceInCommentsAndDocumentsResolves(t *testing.T) {
	t.Parallel()
	r := readRepository(t, "../..")
	for _, name := range []string{"README.md", "docs/architecture.md", "Makefile", ".ci/run", "docker-compose.yml"} {
		if r[name] == "" {
			t.Errorf("%s was not read", name)
		}
	}
	for _, p := range r.problems() {
		t.Error(p)
	}
}

// repository maps the path of each file, from the root and with slashes, to its text. Files that are not searched for
// references (pictures, fixtures) have no text: they can only be the target of a reference.
type repository map[string]string

var (
	// foreign are directories with files that are not part of the repository.
	foreign = []string{".git", "node_modules", "bin", "data"}
	// searched are the extensions of the files that are searched. "" is Makefile, Dockerfile and scripts.
	searched = []string{".go", ".md", ".yml", ".yaml", ".mjs", ".conf", ".env", ".sh", ""}
)

func readRepository(t *testing.T, root string) repository {
	t.Helper()
	r := repository{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(foreign, d.Name()):
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if !slices.Contains(searched, path.Ext(name)) || strings.Contains(name, "/testdata/") {
			r[name] = ""
			return nil
		}
		text, err := os.ReadFile(file)
		r[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// has reports whether name is a file or a directory of the repository.
func (r repository) has(name string) bool {
	if _, ok := r[name]; ok || name == "." {
		return true
	}
	for file := range r {
		if strings.HasPrefix(file, name+"/") {
			return true
		}
	}
	return false
}

// problems describes each reference that does not resolve: file, line, and what to do.
func (r repository) problems() []string {
	var all []string
	functions := r.functions()
	for _, name := range slices.Sorted(maps.Keys(r)) {
		lines, isMarkdown := textLines(r[name]), path.Ext(name) == ".md"
		if path.Ext(name) == ".go" {
			lines = commentLines(r[name])
		}
		add := func(number int, problems []string) {
			for _, p := range problems {
				all = append(all, fmt.Sprintf("%s:%d: %s", name, number, p))
			}
		}
		for _, l := range lines {
			add(l.number, r.citationProblems(name, l.text))
			if isMarkdown {
				add(l.number, r.codeProblems(l.text, functions))
			}
		}
		if !isMarkdown {
			continue
		}
		for _, l := range proseLines(r[name]) {
			add(l.number, r.linkProblems(name, l.text))
		}
		for _, a := range repeated(anchors(r[name])) {
			all = append(all, fmt.Sprintf("%s: the anchor #%s is defined twice: rename one", name, a))
		}
	}
	return all
}

// line is one line of a file.
type line struct {
	number int
	text   string
}

func textLines(text string) []line {
	var all []line
	for i, t := range strings.Split(text, "\n") {
		all = append(all, line{i + 1, t})
	}
	return all
}

// commentLines returns the lines of the comments of Go source.
func commentLines(source string) []line {
	var all []line
	file := token.NewFileSet().AddFile("", -1, len(source))
	var s scanner.Scanner
	s.Init(file, []byte(source), func(token.Position, string) {}, scanner.ScanComments)
	for {
		pos, tok, text := s.Scan()
		switch tok {
		case token.EOF:
			return all
		case token.COMMENT:
			for _, l := range textLines(text) {
				all = append(all, line{file.Line(pos) + l.number - 1, l.text})
			}
		}
	}
}

var inlineCode = regexp.MustCompile("`[^`]*`")

// proseLines returns the lines of Markdown outside of code blocks, without inline code.
func proseLines(markdown string) []line {
	var all []line
	fence := ""
	for _, l := range textLines(markdown) {
		indented := strings.TrimLeft(l.text, " ")
		switch {
		case fence != "":
			if strings.HasPrefix(indented, fence) {
				fence = ""
			}
		case strings.HasPrefix(indented, "```"), strings.HasPrefix(indented, "~~~"):
			fence = indented[:3]
		default:
			all = append(all, line{l.number, inlineCode.ReplaceAllString(l.text, "")})
		}
	}
	return all
}

// unavailable are references that a reader of the repository cannot follow, and what to write instead.
var unavailable = []struct {
	pattern *regexp.Regexp
	advice  string
}{
	{regexp.MustCompile(`§`), "cite docs/architecture.md or docs/wechat-api.md with an anchor"},
	{regexp.MustCompile(`\.\./shared\b|/work/`), "this path is outside of the repository: remove it"},
	{regexp.MustCompile(`(?i)\bissue #?\d+`), "issues are not in the repository: write the reason itself"},
	{regexp.MustCompile(`\b(?:getaccesstoken|getticket|tickettocode)\.txt\b`),
		"cite docs/wechat-api.md with an anchor"},
}

var (
	webAddress = regexp.MustCompile(`\bhttps?://[^\s)>"'` + "`" + `]+`)
	document   = regexp.MustCompile(`([\w./-]*[\w-]\.md)\b(?:#([\w-]+))?`)
	natsADR    = regexp.MustCompile(`(NATS (?:ADR-\d+(?:, | and | or ))*)?ADR-\d+`)
)

// citationProblems checks what one line of a comment or document cites: documents with their anchors, and what is not
// available.
func (r repository) citationProblems(name, text string) []string {
	var all []string
	text = webAddress.ReplaceAllString(text, "")
	for _, u := range unavailable {
		if cited := u.pattern.FindString(text); cited != "" {
			all = append(all, cited+": "+u.advice)
		}
	}
	for _, m := range natsADR.FindAllStringSubmatch(text, -1) {
		if m[1] == "" {
			all = append(all, m[0]+": write NATS "+m[0])
		}
	}
	for _, m := range document.FindAllStringSubmatch(text, -1) {
		if p := r.documentProblem(name, m[1], m[2]); p != "" {
			all = append(all, p)
		}
	}
	return slices.Compact(all)
}

// documentProblem checks the name of a document and its anchor. Markdown may name a document relative to its own
// directory; all other files name it from the root.
func (r repository) documentProblem(name, cited, anchor string) string {
	file := path.Clean(cited)
	if relative := path.Join(path.Dir(name), cited); path.Ext(name) == ".md" && r.has(relative) {
		file = relative
	}
	switch {
	case !r.has(file) && r.has("docs/"+file):
		return fmt.Sprintf("%s: write docs/%[1]s", cited)
	case !r.has(file):
		return cited + " is not in the repository: cite a document that is"
	case anchor != "" && !slices.Contains(anchors(r[file]), anchor):
		return noAnchor(file, anchor)
	}
	return ""
}

func noAnchor(file, anchor string) string {
	return fmt.Sprintf("%s has no anchor #%s: correct it, or add the heading or <a id=%q></a>", file, anchor, anchor)
}

var (
	quotedTest     = regexp.MustCompile("`((?:Test|Benchmark|Fuzz)\\w+)`")
	quotedFile     = regexp.MustCompile("`([\\w.-]+(?:/[\\w.-]+)+\\.go)`")
	quotedFunction = regexp.MustCompile("`(\\w+)` in `([\\w/.-]+\\.go)`")
)

// codeProblems checks the code that one line of Markdown names: `TestName`, `package/file.go`, and `function` in
// `package/file.go`.
func (r repository) codeProblems(text string, functions map[string][]string) []string {
	var all []string
	for _, m := range quotedTest.FindAllStringSubmatch(text, -1) {
		isTest := func(file string) bool { return strings.HasSuffix(file, "_test.go") }
		if !slices.ContainsFunc(functions[m[1]], isTest) {
			all = append(all, "there is no test "+m[1]+": correct its name")
		}
	}
	for _, m := range quotedFile.FindAllStringSubmatch(text, -1) {
		if !r.has(m[1]) {
			all = append(all, "there is no file "+m[1]+": correct its path from the root")
		}
	}
	for _, m := range quotedFunction.FindAllStringSubmatch(text, -1) {
		if r.has(m[2]) && !slices.Contains(functions[m[1]], m[2]) {
			all = append(all, fmt.Sprintf("%s has no function %s: correct its name or its file", m[2], m[1]))
		}
	}
	return all
}

var declaration = regexp.MustCompile(`(?m)^func (?:\([^)]*\) )?(\w+)`)

// functions maps the name of each function and method to the files that declare one of this name.
func (r repository) functions() map[string][]string {
	all := map[string][]string{}
	for name, text := range r {
		if path.Ext(name) == ".go" {
			for _, m := range declaration.FindAllStringSubmatch(text, -1) {
				all[m[1]] = append(all[m[1]], name)
			}
		}
	}
	return all
}

var link = regexp.MustCompile(`\]\(([^()\s]*)\)|^\[[^\]]+\]: +(\S+)`)

// linkProblems checks the relative links of one line of Markdown. documentProblem has checked the anchors of links to
// other documents.
func (r repository) linkProblems(name, text string) []string {
	var all []string
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		target := m[1] + m[2]
		if strings.Contains(target, ":") {
			continue // https:, mailto:
		}
		to, anchor, _ := strings.Cut(target, "#")
		file := path.Join(path.Dir(name), to)
		switch {
		case to == "" && !slices.Contains(anchors(r[name]), anchor):
			all = append(all, noAnchor(name, anchor))
		case to != "" && !r.has(file):
			all = append(all, fmt.Sprintf("there is no file %s: correct the link (%s)", file, target))
		case to != "" && anchor != "" && path.Ext(file) != ".md":
			all = append(all, fmt.Sprintf("the link (%s) has an anchor, and %s has none: name the function instead",
				target, file))
		}
	}
	return all
}

var (
	explicitAnchor = regexp.MustCompile(`<a (?:id|name)="([^"]+)">`)
	heading        = regexp.MustCompile(`^#{1,6} +(.*?)(?: +#+)?$`)
	linkText       = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	htmlTag        = regexp.MustCompile(`<[^>]*>`)
)

// anchors returns the anchors of a document as GitHub makes them: of its headings, and the explicit ones.
func anchors(markdown string) []string {
	var all []string
	count := map[string]int{}
	whole := textLines(markdown)
	for _, l := range proseLines(markdown) {
		for _, m := range explicitAnchor.FindAllStringSubmatch(l.text, -1) {
			all = append(all, m[1])
		}
		m := heading.FindStringSubmatch(whole[l.number-1].text) // a heading keeps its inline code
		if m == nil {
			continue
		}
		s := slug(m[1])
		count[s]++
		if n := count[s]; n > 1 {
			s += "-" + strconv.Itoa(n-1)
		}
		all = append(all, s)
	}
	return all
}

// repeated returns the anchors that occur more than once.
func repeated(anchors []string) []string {
	var all []string
	slices.Sort(anchors)
	for i := 1; i < len(anchors); i++ {
		if anchors[i] == anchors[i-1] {
			all = append(all, anchors[i])
		}
	}
	return slices.Compact(all)
}

// slug is the anchor that GitHub makes of a heading.
func slug(heading string) string {
	heading = htmlTag.ReplaceAllString(linkText.ReplaceAllString(heading, "$1"), "")
	return strings.Map(func(c rune) rune {
		switch {
		case c == ' ':
			return '-'
		case c == '-', unicode.IsLetter(c), unicode.IsNumber(c), unicode.IsMark(c), unicode.Is(unicode.Pc, c):
			return unicode.ToLower(c)
		}
		return -1
	}, strings.TrimSpace(heading))
}

func TestReferencesThatDoNotResolveAreFound(t *testing.T) {
	t.Parallel()
	r := repository{
		"README.md": "[a](docs/page.md#page) [b](LICENSE) [c](docs)\n",
		"LICENSE":   "",
		"Makefile":  "# docs/architecture.md#refresh-1 docs/architecture.md#refresh-12\n",
		"docs/architecture.md": "# Architecture\n## Words\n<a id=\"refresh-1\"></a>**refresh-1** [a](#words-1)\n" +
			"## Words\n```sh\n## no heading\n```\n## Lost & `found`\n<a id=\"words\"></a>\n",
		"docs/page.md": "# Page\n" +
			"[a](architecture.md#words-1) [b](../README.md) [c](#page) [d](architecture.md#lost--found)\n" +
			"[e](https://example.org/none.md#none) `[f](none)` RFC 8259\n" +
			"[g](none.md)\n" +
			"[h](architecture.md#no-heading)\n" +
			"[i](#none)\n" +
			"[j](../none)\n" +
			"[k](../worker/turn.go#L7)\n" +
			"`TestTurn` `publish` in `worker/turn.go`\n" +
			"`TestNone`\n" +
			"`none` in `worker/turn.go`\n" +
			"`publish` in `worker/none.go`\n",
		"worker/turn.go": "package worker\n\n" +
			"// docs/architecture.md#refresh-1, NATS ADR-8, NATS ADR-43 and ADR-48\n" +
			"// page.md\n" +
			"/* design.md\n" +
			"ADR-8 */\n" +
			"func (t *turn) publish() { _ = \"design.md §5 ADR-8\" }\n",
		"worker/turn_test.go": "package worker\n\n" +
			"// design §5\n" +
			"// issue 7\n" +
			"// ../shared/tools\n" +
			"// getticket.txt\n" +
			"func TestTurn(t *testing.T) {}\n",
	}
	want := []string{
		"Makefile:1: " + noAnchor("docs/architecture.md", "refresh-12"),
		"docs/architecture.md: the anchor #words is defined twice: rename one",
		"docs/page.md:4: none.md is not in the repository: cite a document that is",
		"docs/page.md:5: " + noAnchor("docs/architecture.md", "no-heading"),
		"docs/page.md:10: there is no test TestNone: correct its name",
		"docs/page.md:11: worker/turn.go has no function none: correct its name or its file",
		"docs/page.md:12: there is no file worker/none.go: correct its path from the root",
		"docs/page.md:4: there is no file docs/none.md: correct the link (none.md)",
		"docs/page.md:6: " + noAnchor("docs/page.md", "none"),
		"docs/page.md:7: there is no file none: correct the link (../none)",
		"docs/page.md:8: the link (../worker/turn.go#L7) has an anchor, and worker/turn.go has none: " +
			"name the function instead",
		"worker/turn.go:4: page.md: write docs/page.md",
		"worker/turn.go:5: design.md is not in the repository: cite a document that is",
		"worker/turn.go:6: ADR-8: write NATS ADR-8",
		"worker/turn_test.go:3: §: cite docs/architecture.md or docs/wechat-api.md with an anchor",
		"worker/turn_test.go:4: issue 7: issues are not in the repository: write the reason itself",
		"worker/turn_test.go:5: ../shared: this path is outside of the repository: remove it",
		"worker/turn_test.go:6: getticket.txt: cite docs/wechat-api.md with an anchor",
	}
	if diff := cmp.Diff(want, r.problems()); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestAnchorsAreThoseThatGitHubMakes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Words":                            "words",
		"/healthz and /readyz":             "healthz-and-readyz",
		"`code.resolve`: one at a time":    "coderesolve-one-at-a-time",
		"10,000 accounts on one worker":    "10000-accounts-on-one-worker",
		"WECHAT_TOKEN_API":                 "wechat_token_api",
		"A [link](x.md#y) - with a dash":   "a-link---with-a-dash",
		`<a id="x"></a>What is not "kept"`: "what-is-not-kept",
		"两个账号":                             "两个账号",
	} {
		if got := slug(text); got != want {
			t.Errorf("slug(%q) is %q, want %q", text, got, want)
		}
	}
}
