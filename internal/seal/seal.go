// Package seal authenticates what workers store in the buckets: a seal is a MAC, made with a key that all workers
// of an account derive from its AppSecret, so there is no key to manage. Whoever may write to a bucket but does
// not know the AppSecret can store nothing that a worker believes (docs/architecture.md#seal).
//
// A seal is bound to one place (a bucket and a key): a copy of it is worth nothing elsewhere. It does not say when
// it was made, so an earlier text of the same place stays valid: callers compare generations and times.
package seal

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
)

// Key makes and checks the seals of one account. It is safe for concurrent use. It prints as ***.
type Key struct {
	id  [idSize]byte
	mac [sha256.Size]byte
}

const (
	idSize = 6
	// version is a part of every derivation: a change of what is sealed, or how, gets a new version.
	version = "wxkeeper seal v1"
)

// New derives the key of an account from its AppSecret (HKDF-SHA256, RFC 5869). Neither the key nor its id, which
// every seal shows, reveals the AppSecret: it has 128 random bits.
func New(appid, secret string) Key {
	material := []byte(secret)
	defer clear(material) // it is one copy of the AppSecret less in memory
	derived, err := hkdf.Key(sha256.New, material, nil, version+"\x00"+appid, idSize+sha256.Size)
	if err != nil {
		panic(err) // only if the length were too large
	}
	var k Key
	copy(k.id[:], derived)
	copy(k.mac[:], derived[idSize:])
	return k
}

// Format prints *** for every verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "***") }

// Verdict is what a seal shows of a text.
type Verdict uint8

// The verdicts.
const (
	// Genuine: a worker that knows the AppSecret of one of the keys has stored the text in this place.
	Genuine Verdict = iota
	// Foreign: the seal names a key that was not given. A worker with another AppSecret has made it, or anybody.
	Foreign
	// Forged: there is no seal, or it is wrong. No worker has stored the text in this place.
	Forged
)

// Place is where a text is stored: the name of the bucket and the key in it.
type Place struct{ Bucket, Key string }

// sum is the MAC of a text in a place. Lengths separate the parts, so no two inputs are encoded alike.
func (k Key) sum(p Place, text []byte) []byte {
	h := hmac.New(sha256.New, k.mac[:])
	var n [8]byte
	for _, part := range []string{p.Bucket, p.Key} {
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	h.Write(text)
	return h.Sum(nil)
}

// A seal as text: the id of its key and the MAC in unpadded base64url. Their sizes are multiples of 3 bytes, or
// come last, so the text of the id is a prefix of the text of both.
var encoding = base64.RawURLEncoding

var size = encoding.EncodedLen(idSize + sha256.Size)

func (k Key) text(p Place, text []byte) []byte {
	return encoding.AppendEncode(nil, append(k.id[:], k.sum(p, text)...))
}

func check(p Place, text, sealed []byte, keys []Key) Verdict {
	var raw [idSize + sha256.Size]byte
	if n, err := encoding.Strict().Decode(raw[:], sealed); err != nil || n != len(raw) {
		return Forged
	}
	for _, k := range keys {
		if !bytes.Equal(raw[:idSize], k.id[:]) {
			continue
		}
		if hmac.Equal(raw[idSize:], k.sum(p, text)) {
			return Genuine
		}
		return Forged
	}
	return Foreign
}

// The seal of a JSON object is its last member. It is made of the bytes of the object without this member, so
// versions of wxkeeper that know other members understand each other's seals.
const (
	memberStart = `,"mac":"`
	memberEnd   = `"}`
)

// JSON returns a JSON object with its seal. object must have at least one member, and nothing after its last
// brace.
func JSON(k Key, p Place, object []byte) []byte {
	sealed := make([]byte, 0, len(object)+len(memberStart)+size+len(memberEnd))
	sealed = append(sealed, object[:len(object)-1]...)
	sealed = append(sealed, memberStart...)
	sealed = append(sealed, k.text(p, object)...)
	return append(sealed, memberEnd...)
}

// CheckJSON checks the seal of a JSON object.
func CheckJSON(keys []Key, p Place, sealed []byte) Verdict {
	rest, ok := bytes.CutSuffix(sealed, []byte(memberEnd))
	if !ok || len(rest) < size+len(memberStart) {
		return Forged
	}
	object, text := rest[:len(rest)-size], rest[len(rest)-size:]
	object, ok = bytes.CutSuffix(object, []byte(memberStart))
	if !ok {
		return Forged
	}
	return check(p, append(bytes.Clone(object), '}'), text, keys)
}

// Text returns a text with its seal, after a space.
func Text(k Key, p Place, text []byte) []byte {
	return append(append(bytes.Clone(text), ' '), k.text(p, text)...)
}

// CheckText checks the seal of a text, and returns the text without it.
func CheckText(keys []Key, p Place, sealed []byte) ([]byte, Verdict) {
	i := bytes.LastIndexByte(sealed, ' ')
	if i < 0 {
		return nil, Forged
	}
	return sealed[:i], check(p, sealed[:i], sealed[i+1:], keys)
}
