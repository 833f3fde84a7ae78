package wechat

import (
	"bytes"
	"encoding/json"
	"slices"
)

// fieldNames are the fields that this package reads. Other fields remain in the raw answer.
var fieldNames = [...]string{"errcode", "errmsg", "code", "access_token", "expires_in", "ticket", "ip_list"}

// fields are the raw values of fieldNames; nil if the answer lacks the field.
type fields [len(fieldNames)]json.RawMessage

func (f *fields) get(name string) json.RawMessage {
	if i := slices.Index(fieldNames[:], name); i >= 0 {
		return f[i]
	}
	return nil
}

// set stores a value. Of a name that occurs twice the last value wins, as in encoding/json.
func (f *fields) set(name []byte, value json.RawMessage) {
	for i, n := range fieldNames {
		if n == string(name) {
			f[i] = value
		}
	}
}

// members calls visit for each member of a JSON object. The object must be valid (json.Valid), without white
// space around it. name and value are slices of object.
//
// encoding/json is not used, because it matches the fields of a struct without regard to upper and lower case, and
// because decoding into a map was the largest single cost of resolving a code.
func members(object []byte, visit func(name []byte, value json.RawMessage)) {
	for i := 1; ; {
		i = skipSpace(object, i)
		if object[i] == ',' {
			i = skipSpace(object, i+1)
		}
		if object[i] == '}' {
			return
		}
		end := skipValue(object, i)
		name := object[i+1 : end-1]
		i = skipSpace(object, skipSpace(object, end)+1) // over the colon
		end = skipValue(object, i)
		visit(plain(name), object[i:end])
		i = end
	}
}

// plain returns name without its escapes.
func plain(name []byte) []byte {
	if bytes.IndexByte(name, '\\') < 0 {
		return name
	}
	var s string
	_ = json.Unmarshal(slices.Concat([]byte{'"'}, name, []byte{'"'}), &s) // valid, so it decodes
	return []byte(s)
}

func skipSpace(text []byte, i int) int {
	for text[i] == ' ' || text[i] == '\t' || text[i] == '\n' || text[i] == '\r' {
		i++
	}
	return i
}

// skipValue returns the end of the value that begins at i.
func skipValue(text []byte, i int) int {
	depth := 0
	for ; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i // the end of the object or array around a number or word
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
	}
	return i
}
