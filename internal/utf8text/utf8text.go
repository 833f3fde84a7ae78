// Package utf8text reads text that people have typed and saved: files, standard input, requests. Such a text is
// UTF-8. Editors of Windows add a byte order mark, which this package takes off. They also save UTF-16 and GBK: this
// package refuses those and names the encoding, because their text would otherwise be garbled, or be refused for a
// reason that its author does not see.
package utf8text

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"
)

// Error says that a text is not UTF-8. It has no part of the text, which may be a secret.
type Error struct {
	What     string // the text: "this file"
	Encoding string // "UTF-16", "not UTF-8 but probably GBK" and so on, or Unknown
}

// Unknown is the encoding of a text that is not UTF-8 and not Chinese.
const Unknown = "not UTF-8"

func (e *Error) Error() string { return fmt.Sprintf("%s is %s: save it as UTF-8", e.What, e.Encoding) }

// ReadFile returns the text of a file. Its error does not repeat the name of the file.
func ReadFile(file string) ([]byte, error) {
	b, err := readFile(file)
	if err != nil {
		return nil, err
	}
	text, err := Decode(b, "this file")
	if err != nil {
		clear(b) // it may be a secret
	}
	return text, err
}

// ReadMarked is [ReadFile] for a file in which only some lines are ours, as in a PEM file: the other lines may be in
// any encoding that has ASCII in it. It takes off every byte order mark, because such files are often joined from
// several.
func ReadMarked(file string) ([]byte, error) {
	b, err := readFile(file)
	if err != nil {
		return nil, err
	}
	if name := wide(b); name != "" {
		clear(b)
		return nil, &Error{"this file", name}
	}
	if !bytes.Contains(b, mark) {
		return b, nil
	}
	defer clear(b) // it may be a private key
	return bytes.ReplaceAll(b, mark, nil), nil
}

func readFile(file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if pe, ok := err.(*fs.PathError); ok { //nolint:errorlint // os.ReadFile does not wrap it
		return nil, pe.Err
	}
	return b, err
}

// Decode returns a text without its byte order mark. The result is a part of b. what names the text in an [Error]:
// "this file", "the request".
func Decode(b []byte, what string) ([]byte, error) {
	if name := wide(b); name != "" {
		return nil, &Error{what, name}
	}
	b = bytes.TrimPrefix(b, mark)
	switch {
	case utf8.Valid(b):
		return b, nil
	case isGBK(b):
		return nil, &Error{what, "not UTF-8 but probably GBK"}
	}
	return nil, &Error{what, Unknown}
}

var mark = []byte("\ufeff")

// wide returns the name of an encoding whose characters have two or four bytes, by its byte order mark or by the zero
// bytes that every ASCII character has in it.
func wide(b []byte) string {
	switch {
	case bytes.HasPrefix(b, []byte{0xff, 0xfe, 0, 0}), bytes.HasPrefix(b, []byte{0, 0, 0xfe, 0xff}):
		return "UTF-32"
	case bytes.HasPrefix(b, []byte{0xff, 0xfe}), bytes.HasPrefix(b, []byte{0xfe, 0xff}):
		return "UTF-16"
	}
	zeros := [2]int{} // at even and at odd offsets
	for i, c := range b {
		if c == 0 {
			zeros[i%2]++
		}
	}
	if min(zeros[0], zeros[1]) == 0 && zeros[0]+zeros[1] > len(b)/4 {
		return "UTF-16"
	}
	return ""
}

// isGBK reports whether a text that is not UTF-8 is probably Chinese in GBK, or in GB18030, which contains it.
func isGBK(b []byte) bool {
	text, err := simplifiedchinese.GB18030.NewDecoder().Bytes(b)
	if err != nil || bytes.ContainsRune(text, utf8.RuneError) {
		return false
	}
	defer clear(text)
	return bytes.ContainsFunc(text, func(r rune) bool { return unicode.Is(unicode.Han, r) })
}
