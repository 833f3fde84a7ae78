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

// maxPeek is how much of an answer is examined, in bytes. WeChat's errors have some hundred bytes.
const maxPeek = 16 << 10

// isDeadToken reports whether an answer is WeChat's error that the access_token is dead. It reads as little
// as possible, and puts a body into the answer that repeats what it has read.
//
// Only the errcode decides: WeChat's HTTP status is always 200, and its Content-Type means nothing
// (docs/wechat-api.md#answers).
func isDeadToken(resp *http.Response) bool {
	if resp.StatusCode == http.StatusSwitchingProtocols || resp.Body == nil || resp.Body == http.NoBody {
		return false
	}
	// If the base has requested the encoding itself, it has also decoded the body and removed the header.
	encoding := cmp.Or(resp.Header.Get("Content-Encoding"), "identity")
	if resp.ContentLength > maxPeek || !strings.EqualFold(encoding, "identity") {
		return false
	}
	p := &peeked{rest: resp.Body}
	resp.Body = p
	return p.peek(int(resp.ContentLength)) && isDeadErrcode(p.head)
}

// peeked is a body whose beginning was read.
type peeked struct {
	head []byte // what was read; Read returns it first
	err  error  // the error of reading; Read returns it after head
	rest io.ReadCloser
}

const (
	firstRead = 1 << 10 // bytes, if the size of the body is not known
	maxEmpty  = 100     // reads without data, after which the caller must read
)

// peek reads a JSON object to its end, if the body begins with one, and reports whether the head may have all
// of it. size is the size of the body; 0 or less if it is not known. Then peek stops at the end of the object,
// so that it does not delay a stream of objects.
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

// Read returns what was read, and then the rest.
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

// object finds the end of a JSON object that arrives in pieces. It does not check the JSON.
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

// deadErrcodes are WeChat's errcodes for an access_token that is not the latest one, that has expired, or
// that is malformed (docs/wechat-api.md#errcodes).
var deadErrcodes = [...]string{"40001", "42001", "40014"}

// isDeadErrcode reports whether text begins with an object whose errcode is one of deadErrcodes.
func isDeadErrcode(text []byte) bool {
	contains := func(code string) bool { return bytes.Contains(text, []byte(code)) }
	if !slices.ContainsFunc(deadErrcodes[:], contains) { // the usual case: it saves the decoding
		return false
	}
	var members map[string]json.RawMessage // not a struct, because its fields ignore case: ERRCODE is not errcode
	err := json.NewDecoder(bytes.NewReader(text)).Decode(&members)
	return err == nil && slices.Contains(deadErrcodes[:], string(members["errcode"]))
}
