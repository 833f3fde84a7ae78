package utf8text_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"golang.org/x/text/encoding/simplifiedchinese"

	"github.com/wxkeeper/wxkeeper/internal/utf8text"
)

const mark = "\ufeff"

// wide encodes a text in UTF-16.
func wide(order binary.AppendByteOrder, text string) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, unit)
	}
	return string(b)
}

func gbk(t *testing.T, text string) string {
	t.Helper()
	s, err := simplifiedchinese.GBK.NewEncoder().String(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTextIsReadAsUTF8AndOtherEncodingsAreNamed(t *testing.T) {
	t.Parallel()
	const text = `[{"appid": "wx1", "name": "旗舰店"}]` + "\n"
	for name, tt := range map[string]struct{ in, want, refused string }{
		"empty":                      {"", "", ""},
		"UTF-8":                      {text, text, ""},
		"UTF-8 with a mark":          {mark + text, text, ""},
		"a mark":                     {mark, "", ""},
		"UTF-16":                     {wide(binary.LittleEndian, mark+text), "", "UTF-16"},
		"UTF-16, big endian":         {wide(binary.BigEndian, mark+text), "", "UTF-16"},
		"UTF-16 without a mark":      {wide(binary.LittleEndian, text), "", "UTF-16"},
		"UTF-16, other end, no mark": {wide(binary.BigEndian, "0123456789abcdef"), "", "UTF-16"},
		"UTF-32":                     {"\xff\xfe\x00\x00[\x00\x00\x00", "", "UTF-32"},
		"GBK":                        {gbk(t, text), "", "probably GBK"},
		"neither":                    {"caf\xe9 \xff", "", "not UTF-8"},
	} {
		got, err := utf8text.Decode([]byte(tt.in), "this file")
		switch {
		case tt.refused == "" && (err != nil || string(got) != tt.want):
			t.Errorf("%s: %q, %v, want %q", name, got, err, tt.want)
		case tt.refused != "" && (err == nil || !strings.HasPrefix(err.Error(), "this file is ") ||
			!strings.Contains(err.Error(), tt.refused+": save it as UTF-8")):
			t.Errorf("%s: %q, %v, want an error that names %s", name, got, err, tt.refused)
		}
	}
}

// PEM files are often joined from several files, and their comments may be in any encoding.
func TestEveryMarkOfAPEMFileIsTakenOff(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f")
	for in, want := range map[string]string{
		mark + "-----BEGIN\n" + mark + "-----BEGIN\n": "-----BEGIN\n-----BEGIN\n",
		gbk(t, "商城") + "\n-----BEGIN\n":               gbk(t, "商城") + "\n-----BEGIN\n",
	} {
		if err := os.WriteFile(file, []byte(in), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := utf8text.ReadMarked(file); err != nil || string(got) != want {
			t.Errorf("%q is read as %q, %v", in, got, err)
		}
	}
	if err := os.WriteFile(file, []byte(wide(binary.LittleEndian, mark+"-----BEGIN")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := utf8text.ReadMarked(file); err == nil || err.Error() != "this file is UTF-16: save it as UTF-8" {
		t.Errorf("the error of a UTF-16 file is %v", err)
	}
}
