package config

import (
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
)

// Unknown is a variable that begins like one of wxkeeper's variables, and that wxkeeper does not read.
type Unknown struct {
	Name    string
	Nearest string // the known variable that was probably meant; empty if no name is similar
}

// ofService matches the variables by which Kubernetes describes a Service called wxkeeper to containers.
var ofService = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// UnknownVariables returns the variables of environ that begin with WXKEEPER_ or WECHAT_ and that wxkeeper
// does not read, and ALL_PROXY if there is no HTTPS_PROXY, sorted by name; nil means the environment of the process. An
// empty variable counts as not set. Unknown variables of numbered accounts are not listed, because Load refuses them.
func UnknownVariables(environ map[string]string) []Unknown {
	if environ == nil {
		environ = env.ToMap(os.Environ())
	}
	known := Table()
	var all []Unknown
	for name, value := range environ {
		ours := strings.HasPrefix(name, "WXKEEPER_") || strings.HasPrefix(name, "WECHAT_")
		if value == "" || !ours || ofService.MatchString(name) || ofNumbered.MatchString(name) ||
			slices.ContainsFunc(known, func(r Row) bool { return r.Name == name }) {
			continue
		}
		u := Unknown{Name: name}
		const far = 4 // from this distance on, two names are different words
		for best, i := far, 0; i < len(known); i++ {
			if d := distance(name, known[i].Name); d < best {
				best, u.Nearest = d, known[i].Name
			}
		}
		all = append(all, u)
	}
	for _, name := range []string{"ALL_PROXY", "all_proxy"} { // curl reads it; calls would not take that proxy
		if environ[name] != "" && environ["HTTPS_PROXY"] == "" && environ["https_proxy"] == "" {
			all = append(all, Unknown{name, "HTTPS_PROXY"})
		}
	}
	slices.SortFunc(all, func(a, b Unknown) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// distance is the Levenshtein distance: how many letters must be inserted, deleted or changed to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := diagonal
			if a[i] != b[j] {
				changed++
			}
			diagonal = row[j+1]
			row[j+1] = min(changed, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
