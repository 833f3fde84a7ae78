package kv

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
)

// maxPeek is how much of an answer is looked at. WeChat's errors have some hundred bytes.
const maxPeek = 16 << 10

// isDeadToken reports whether an answer is WeChat's error that the access_token is dead. It reads no further than it must,
// and what it read, the caller reads again.
//
// WeChat's HTTP status is 200 whatever happens and its Content-Type means nothing: the errcode decides.
func isDeadToken(resp *http.Response) bool {
	encoding := cmp.Or(resp.Header.Get("Content-Encoding"), "identity") // the base has undone what it has asked for
	if resp.ContentLength > maxPeek || resp.StatusCode == http.StatusSwitchingProtocols || !strings.EqualFold(encoding, "identity") ||
		resp.Body == nil || resp.Body == http.NoBody {
		return false
	}
	p := &peeked{rest: resp.Body}
	resp.Body = p
	return p.peek(int(resp.ContentLength)) && isDeadErrcode(p.head)
}

// peeked is a body of which the beginning was read.
type peeked struct {
	head []byte // read, and not yet handed on
	err  error  // of the reading, to be handed on after head
	rest io.ReadCloser
}

const (
	firstRead = 1 << 10 // where the size is not known
	maxEmpty  = 100     // reads that bring nothing, after which it is left to the caller
)

// peek reads an object of JSON to its end, if the body begins with one. size is that of the body, 0 or less where it is not
// known: then the object's own end counts, so that a stream of objects is not held up.
func (p *peeked) peek(size int) bool {
	first := size
	if size <= 0 {
		first = firstRead
	}
	p.head = make([]byte, 0, first)
	begun := false
	var o object
	for empty := 0; p.err == nil && len(p.head) < maxPeek && empty < maxEmpty; {
		p.head = slices.Grow(p.head, 1)
		var n int
		n, p.err = p.rest.Read(p.head[len(p.head):min(cap(p.head), maxPeek)])
		piece := p.head[len(p.head) : len(p.head)+n]
		p.head = p.head[:len(p.head)+n]
		if empty++; n > 0 {
			empty = 0
		}
		if text := bytes.TrimLeft(piece, " \t\r\n"); !begun && len(text) > 0 {
			if text[0] != '{' {
				return false
			}
			begun = true
		}
		if len(p.head) == size || size <= 0 && p.err == nil && o.ends(piece) {
			return true
		}
	}
	return p.err != nil
}

// Read hands on what was read, and then the rest.
func (p *peeked) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	if p.err != nil {
		return 0, p.err
	}
	return p.rest.Read(b)
}

// Close closes the body.
func (p *peeked) Close() error { return p.rest.Close() }

// object finds the end of an object of JSON that comes in pieces. It does not check the JSON.
type object struct {
	depth           int
	quoted, escaped bool
}

// ends reports whether the object ends in the next piece.
func (o *object) ends(piece []byte) bool {
	for _, b := range piece {
		switch {
		case o.escaped:
			o.escaped = false
		case o.quoted:
			o.escaped, o.quoted = b == '\\', b != '"'
		case b == '"':
			o.quoted = true
		case b == '{' || b == '[':
			o.depth++
		case b == '}' || b == ']':
			if o.depth--; o.depth <= 0 {
				return true
			}
		}
	}
	return false
}

// deadErrcodes are WeChat's for an access_token that is not the latest, whose life is over, that is none.
var deadErrcodes = [...]string{"40001", "42001", "40014"}

// isDeadErrcode reports whether the object that text begins with has one of deadErrcodes as its errcode.
func isDeadErrcode(text []byte) bool {
	contains := func(code string) bool { return bytes.Contains(text, []byte(code)) }
	if !slices.ContainsFunc(deadErrcodes[:], contains) { // nearly always: decoding costs more than all else here
		return false
	}
	var members map[string]json.RawMessage // not a struct, which would take ERRCODE for errcode
	err := json.NewDecoder(bytes.NewReader(text)).Decode(&members)
	return err == nil && slices.Contains(deadErrcodes[:], string(members["errcode"]))
}
