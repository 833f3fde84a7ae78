package config

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/setting"
)

// numbered is the prefix of the variables of the numbered account i. The first is 0.
func numbered(i int) string { return "WECHAT_ACCOUNTS_" + strconv.Itoa(i) + "_" }

// ofNumbered matches variables that can only be meant for a numbered account.
var ofNumbered = regexp.MustCompile(`^WECHAT_ACCOUNTS_([0-9]+)`)

// checkNumbers refuses what the env package would ignore silently: accounts after a missing number, and names that it
// does not know. A worker must not start without one of its accounts, or without a secret.
func checkNumbers(set map[string]string) error {
	var endings []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[entry]()) {
		endings = append(endings, f.Tag.Get("env"))
	}
	named := map[string]string{} // number → the first variable with this number
	for _, name := range slices.Sorted(maps.Keys(set)) {
		m := ofNumbered.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		if ending, ok := strings.CutPrefix(name, m[0]+"_"); !ok || !slices.Contains(endings, ending) {
			return setting.Errorf(name, "there is no such variable: %s_ is followed by one of %s", m[0],
				strings.Join(endings, ", "))
		}
		if named[m[1]] == "" {
			named[m[1]] = name
		}
	}
	missing := 0
	for ; named[strconv.Itoa(missing)] != ""; missing++ {
		delete(named, strconv.Itoa(missing))
	}
	if rest := slices.Sorted(maps.Values(named)); len(rest) > 0 {
		return setting.Errorf(rest[0], "there is no %sAPPID: number the accounts 0, 1, 2 and so on, without a gap "+
			"and without leading zeros",
			numbered(missing))
	}
	return nil
}

// firstSet is the ending of the first variable of e that is set.
func (e entry) firstSet() string {
	v := reflect.ValueOf(e)
	for _, f := range reflect.VisibleFields(v.Type()) {
		if !v.FieldByIndex(f.Index).IsZero() {
			return f.Tag.Get("env")
		}
	}
	return ""
}
