package safetext

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestColumnsAreAlignedWithChineseNames(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if err := Table(&b, [][]string{
		{"STATE", "ACCOUNT", "NEXT"}, {"fresh", "wx1 (天猫旗舰店)", "in 1m"}, {"fresh", "wx2 (Ｆｕｌｌ)", "in 1m"},
		{"fresh", "wx3 (shop)", "in 1m"}, {"fresh", "wx4 (\x1b[2J)", "in 1m"}, {"fresh"},
	}); err != nil {
		t.Fatal(err)
	}
	want := `STATE  ACCOUNT           NEXT
fresh  wx1 (天猫旗舰店)  in 1m
fresh  wx2 (Ｆｕｌｌ)    in 1m
fresh  wx3 (shop)        in 1m
fresh  wx4 (\x1b[2J)     in 1m
fresh
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}
