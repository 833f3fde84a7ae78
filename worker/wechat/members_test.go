package wechat

import (
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"
)

// membersOf is what members tells of a text, as encoding/json would put it into a map.
func membersOf(text []byte) map[string]json.RawMessage {
	got := map[string]json.RawMessage{}
	members(text, func(name []byte, value json.RawMessage) { got[string(name)] = value })
	return got
}

func TestMembersAreThoseOfEncodingJSON(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{}`, `{ }`, `{"a":1}`, "{\n \"a\" : -1.5e+3 ,\t\"b\":null\r}", `{"a":"}","b":"\\","c":"\"","d":[{"x":"]"},[1,2]],"e":{"a":{"a":2}}}`,
		`{"\u0061b":true,"a\"b":false}`, `{"a":1,"a":2}`, `{"code":[],"":{}}`,
	} {
		var want map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		if got := membersOf([]byte(text)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func FuzzMembers(f *testing.F) {
	f.Add([]byte(`{"a":"}","b":["\\",{"c":"\""}], "d" : 1e5 }`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var want map[string]json.RawMessage
		if !utf8.Valid(text) || len(text) == 0 || text[0] != '{' || text[len(text)-1] != '}' || json.Unmarshal(text, &want) != nil {
			return
		}
		got := membersOf(text)
		if len(got) != len(want) {
			t.Fatalf("%q: %d members, want %d", text, len(got), len(want))
		}
		for name, value := range want {
			if string(got[name]) != string(value) {
				t.Fatalf("%q: %q is %q, want %q", text, name, got[name], value)
			}
		}
	})
}
