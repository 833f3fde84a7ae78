package wechat

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"
)

// membersOf collects the members of a text in a map, as encoding/json would decode them.
func membersOf(text []byte) map[string]json.RawMessage {
	got := map[string]json.RawMessage{}
	members(text, func(name []byte, value json.RawMessage) { got[string(name)] = value })
	return got
}

func TestMembersAgreeWithEncodingJSON(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{}`, `{ }`, `{"a":1}`, "{\n \"a\" : -1.5e+3 ,\t\"b\":null\r}",
		`{"a":"}","b":"\\","c":"\"","d":[{"x":"]"},[1,2]],"e":{"a":{"a":2}}}`,
		`{"\u0061b":true,"a\"b":false}`, `{"a":1,"a":2}`, `{"code":[],"":{}}`,
	} {
		var want map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		equal(t, "members of "+text, membersOf([]byte(text)), want)
	}
}

func FuzzMembers(f *testing.F) {
	f.Add([]byte(`{"a":"}","b":["\\",{"c":"\""}], "d" : 1e5 }`))
	f.Fuzz(func(t *testing.T, text []byte) {
		isObject := bytes.HasPrefix(text, []byte("{")) && bytes.HasSuffix(text, []byte("}"))
		var want map[string]json.RawMessage
		if !isObject || !utf8.Valid(text) || json.Unmarshal(text, &want) != nil {
			return
		}
		equal(t, "members", membersOf(text), want)
	})
}
