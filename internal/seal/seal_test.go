package seal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

var (
	place  = Place{"wechat", "wx1.access_token"}
	object = []byte(`{"appid":"wx1","value":"VALUE"}`)
)

func TestSealIsGenuineOnlyInItsPlaceWithItsKeyAndItsText(t *testing.T) {
	t.Parallel()
	key := New("wx1", "secret")
	sealed := JSON(key, place, object)
	if !json.Valid(sealed) {
		t.Errorf("%s is not JSON", sealed)
	}
	for _, tt := range []struct {
		name   string
		keys   []Key
		place  Place
		sealed []byte
		want   Verdict
	}{
		{"as stored", []Key{key}, place, sealed, Genuine},
		{"with the secret before as well", []Key{New("wx1", "new"), key}, place, sealed, Genuine},
		{"with another secret", []Key{New("wx1", "new")}, place, sealed, Foreign},
		{"with the key of another account with this secret", []Key{New("wx2", "secret")}, place, sealed, Foreign},
		{"without keys", nil, place, sealed, Foreign},
		{"in another bucket", []Key{key}, Place{"wechat_ledger", place.Key}, sealed, Forged},
		{"under another key", []Key{key}, Place{"wechat", "wx2.access_token"}, sealed, Forged},
		{"the border between bucket and key moved", []Key{key}, Place{"wechatwx1", ".access_token"}, sealed, Forged},
		{"another value", []Key{key}, place, bytes.Replace(sealed, []byte("VALUE"), []byte("OTHER"), 1), Forged},
		{"another member", []Key{key}, place, bytes.Replace(sealed, []byte(`{`), []byte(`{"a":1,`), 1), Forged},
		{"a member after the seal", []Key{key}, place,
			append(bytes.Clone(sealed[:len(sealed)-1]), `,"value":"OTHER"}`...), Forged},
		{"white space after it", []Key{key}, place, append(bytes.Clone(sealed), '\n'), Forged},
		{"without the seal", []Key{key}, place, object, Forged},
		{"an empty seal", []Key{key}, place, []byte(`{"a":1,"mac":""}`), Forged},
		{"nothing", []Key{key}, place, nil, Forged},
		{"no JSON", []Key{key}, place, []byte("other words"), Forged},
	} {
		if got := CheckJSON(tt.keys, tt.place, tt.sealed); got != tt.want {
			t.Errorf("%s: the verdict is %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestEveryChangedByteIsFound(t *testing.T) {
	t.Parallel()
	key := New("wx1", "secret")
	sealed := JSON(key, place, object)
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		if got := CheckJSON([]Key{key}, place, changed); got == Genuine {
			t.Errorf("byte %d changed: %s is genuine", i, changed)
		}
	}
}

func TestTextIsReturnedWithoutItsSeal(t *testing.T) {
	t.Parallel()
	key := New("wx1", "secret")
	for _, text := range []string{"", "w1 ABC 17", "a worker with spaces"} {
		got, verdict := CheckText([]Key{key}, place, Text(key, place, []byte(text)))
		if string(got) != text || verdict != Genuine {
			t.Errorf("%q: got %q, verdict %d", text, got, verdict)
		}
	}
	if _, verdict := CheckText([]Key{key}, place, []byte("w1 ABC 17")); verdict != Forged {
		t.Errorf("a text without a seal: verdict %d", verdict)
	}
	if _, verdict := CheckText([]Key{key}, place, nil); verdict != Forged {
		t.Errorf("no text: verdict %d", verdict)
	}
}

func TestKeyPrintsAsStars(t *testing.T) {
	t.Parallel()
	key := New("wx1", "secret")
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, v := range []any{key, []Key{key}, struct{ Key Key }{key}} {
			if out := fmt.Sprintf(format, v); !strings.Contains(out, "***") || len(out) > 40 {
				t.Errorf("%s prints %s", format, out)
			}
		}
	}
}

func FuzzSealOfJSON(f *testing.F) {
	key := New("wx1", "secret")
	f.Add(JSON(key, place, object))
	f.Add(object)
	f.Add([]byte(`{"mac":"` + strings.Repeat("A", size) + `"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if CheckJSON([]Key{key}, place, data) == Genuine && !bytes.Equal(data, JSON(key, place, object)) {
			t.Errorf("%q is genuine", data)
		}
	})
}

func BenchmarkCheckJSON(b *testing.B) {
	keys := []Key{New("wx1", "secret")}
	sealed := JSON(keys[0], place, object)
	for b.Loop() {
		if CheckJSON(keys, place, sealed) != Genuine {
			b.Fatal("not genuine")
		}
	}
}
