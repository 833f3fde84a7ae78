package config

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// numbered is what the variables of the i-th account begin with, the first being 0.
func numbered(i int) string { return "WECHAT_ACCOUNTS_" + strconv.Itoa(i) + "_" }

// ofNumbered are the variables that can only be meant as those of a numbered account.
var ofNumbered = regexp.MustCompile(`^WECHAT_ACCOUNTS_([0-9]+)`)

// checkNumbers refuses what the env package passes over in silence: an account behind a number that is missing, and a
// name that it does not know. A worker must not start without an account, or without its secret.
func checkNumbers(set map[string]string) error {
	var endings []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[entry]()) {
		endings = append(endings, f.Tag.Get("env"))
	}
	named := map[string]string{} // number → the first variable that has it
	for _, name := range slices.Sorted(maps.Keys(set)) {
		m := ofNumbered.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		if ending, ok := strings.CutPrefix(name, m[0]+"_"); !ok || !slices.Contains(endings, ending) {
			return fmt.Errorf("%s: there is no such variable: after %s_ comes %s", name, m[0], strings.Join(endings, ", "))
		}
		if named[m[1]] == "" {
			named[m[1]] = name
		}
	}
	missing := 0
	for ; named[strconv.Itoa(missing)] != ""; missing++ {
		delete(named, strconv.Itoa(missing))
	}
	if behind := slices.Sorted(maps.Values(named)); len(behind) > 0 {
		return fmt.Errorf("%s: there is no %sAPPID: accounts are numbered 0, 1, 2 and so on, without a gap and without zeros in front", behind[0], numbered(missing))
	}
	return nil
}

// firstSet is the ending of the first variable that is set.
func (e entry) firstSet() string {
	v := reflect.ValueOf(e)
	for _, f := range reflect.VisibleFields(v.Type()) {
		if !v.FieldByIndex(f.Index).IsZero() {
			return f.Tag.Get("env")
		}
	}
	return ""
}
