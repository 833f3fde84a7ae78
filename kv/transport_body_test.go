package kv

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

func TestTransportKnowsADeadTokenByTheErrcodeAlone(t *testing.T) {
	t.Parallel()
	for encoding, want := range map[string]bool{"Identity": true, "gzip": false} {
		resp := answered(nil, deadAnswer)
		resp.Header.Set("Content-Encoding", encoding)
		if got := isDeadToken(resp); got != want {
			t.Errorf("Content-Encoding %s: dead is %t, want %t", encoding, got, want)
		}
	}
	for body, want := range map[string]bool{
		deadAnswer:                                    true,
		`{"errcode":42001,"errmsg":"x"}`:              true,
		`{"errmsg":"x","errcode":40014}`:              true,
		" \t\r\n{ \"errcode\" : 40001 }\n":            true,
		`{"a":{"b":["}"]},"s":"\"{","errcode":40001}`: true,
		`{"errcode":40001} {"more":1}`:                true, // a stream begins so

		`{"errmsg":"\"}","errcode":40001}`: true,
		`{"errmsg":"\\","errcode":40001}`:  true,

		``: false, `null`: false, `40001`: false, `[{"errcode":40001}]`: false, `"{"`: false,
		`{"errcode":0,"errmsg":"ok","id":40001}`:  false,
		`{"errcode":40003,"errmsg":"40001"}`:      false,
		`{"errcode":-1}`:                          false,
		`{"errcode":"40001"}`:                     false,
		`{"errcode":400010}`:                      false,
		`{"ERRCODE":40001}`:                       false,
		`{"result":{"errcode":40001}}`:            false,
		`{"errcode":40001`:                        false,
		`{"errcode":40001]`:                       false,
		`<html>{"errcode":40001}`:                 false,
		strings.Repeat(" ", maxPeek) + deadAnswer: false,
		`{"x":"` + strings.Repeat("x", maxPeek) + `","errcode":40001}`: false,
	} {
		for _, length := range []int64{int64(len(body)), -1, 0} {
			src := io.Reader(strings.NewReader(body))
			if length < 0 {
				src = iotest.OneByteReader(src)
			}
			resp := &http.Response{StatusCode: http.StatusOK, ContentLength: length, Body: io.NopCloser(src)}
			if got := isDeadToken(resp); got != want {
				t.Errorf("%.80s, Content-Length %d: dead is %t, want %t", body, length, got, want)
			}
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Errorf("%.80s: %v", body, err)
			}
			if string(b) != body {
				t.Errorf("%.80s became %.80s", body, b)
			}
		}
	}
}

// counted counts the bytes that were read, and one for the end.
type counted struct {
	io.Reader
	read   int
	closed bool
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.read += n
	if err != nil {
		c.read++
	}
	return n, err
}

func (c *counted) Close() error { c.closed = true; return nil }

func TestTransportNeverDelaysALargeBodyOrAStream(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("\x00\x01{", 1<<20)
	for name, c := range map[string]struct {
		head   string
		length int64
		header http.Header
		status int
		most   int // bytes that may be read before the caller has the answer
	}{
		"a picture":                 {big, int64(len(big)), nil, 200, 0},
		"a picture in chunks":       {big, -1, nil, 200, firstRead},
		"a large object":            {`{"list":["` + big, -1, nil, 200, maxPeek},
		"a stream of objects":       {"{\"a\":1}\n", -1, nil, 200, 8},
		"an object of known length": {`{"a":1}`, 7, nil, 200, 7},
		"a compressed answer":       {deadAnswer, -1, http.Header{"Content-Encoding": {"br"}}, 200, 0},
		"a connection taken over":   {deadAnswer, -1, nil, http.StatusSwitchingProtocols, 0},
		"an announced large object": {`{"a":1}`, maxPeek + 1, nil, 200, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Only the caller may read what follows the head: otherwise the test fails, and does not hang.
			errTooFar := errors.New("read too far")
			body := &counted{Reader: io.MultiReader(strings.NewReader(c.head), iotest.ErrReader(errTooFar))}
			resp := &http.Response{StatusCode: c.status, ContentLength: c.length, Header: c.header, Body: body}
			if isDeadToken(resp) {
				t.Error("it counts as WeChat's error")
			}
			if body.read > c.most {
				t.Errorf("%d bytes were read, want at most %d", body.read, c.most)
			}
			got, err := io.ReadAll(resp.Body)
			if !errors.Is(err, errTooFar) {
				t.Errorf("the caller reads the error %v, want %v", err, errTooFar)
			}
			if string(got) != c.head {
				t.Errorf("the caller reads %d bytes, which are not the %d of the body", len(got), len(c.head))
			}
			if resp.Body.Close(); !body.closed {
				t.Error("the body was not closed")
			}
		})
	}
}

// chunked is a body that arrives in pieces, some of them empty, and ends with an error.
type chunked struct {
	data   []byte
	random *rand.Rand
	err    error
	closed int
}

func (c *chunked) Read(b []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, c.end()
	}
	n := copy(b, c.data[:min(len(c.data), c.random.IntN(1+1<<c.random.IntN(12)))])
	c.data = c.data[n:]
	if len(c.data) == 0 && c.random.IntN(2) == 0 {
		return n, c.end()
	}
	return n, nil
}

// end returns the error of the end once.
func (c *chunked) end() error {
	defer func() { c.err = errors.New("read after its end") }()
	return c.err
}

func (c *chunked) Close() error { c.closed++; return nil }

var errBroken = errors.New("the connection broke")

// FuzzTransportBody: whatever the body and its pieces, the caller reads what WeChat sent and the error at its
// end, and isDeadToken agrees with a decoder that sees the whole body.
func FuzzTransportBody(f *testing.F) {
	for i, body := range []string{
		deadAnswer, "", "{", `{"a":[{"b":"}"}],"errcode":42001}`, `{"errcode":40014}trailing`, `  {"errcode":0}`,
		"\x00binary{}", `{"\"":"\\","errcode":40001}`,
	} {
		f.Add([]byte(body), uint16(0), uint64(i), i%2 == 0)
		f.Add([]byte(body), uint16(maxPeek-len(body)-1+i%3), uint64(i), i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, body []byte, spaces uint16, seed uint64, breaks bool) {
		body = append(bytes.Repeat([]byte(" "), int(spaces)), body...) // a large body, from a small input of the fuzzer
		random := rand.New(rand.NewPCG(seed, 0))
		src := &chunked{data: bytes.Clone(body), random: random, err: io.EOF}
		if breaks {
			src.err = errBroken
		}
		length := int64(-1)
		if random.IntN(2) == 0 {
			length = int64(len(body))
		}
		resp := &http.Response{StatusCode: http.StatusOK, ContentLength: length, Body: src}
		dead := isDeadToken(resp)
		if want := isDead(body); dead != want {
			t.Errorf("dead is %t, want %t: %q", dead, want, body)
		}
		got, err := io.ReadAll(iotest.OneByteReader(resp.Body))
		if !bytes.Equal(got, body) {
			t.Errorf("%q became %q", body, got)
		}
		var wantErr error
		if breaks {
			wantErr = errBroken
		}
		if !errors.Is(err, wantErr) {
			t.Errorf("the error at the end is %v, want %v", err, wantErr)
		}
		if resp.Body.Close(); src.closed != 1 {
			t.Errorf("closed %d times", src.closed)
		}
	})
}

// isDead is isDeadToken with nothing but encoding/json.
func isDead(body []byte) bool {
	d := json.NewDecoder(bytes.NewReader(body[:min(len(body), maxPeek)]))
	var m map[string]json.RawMessage
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' || d.Decode(&m) != nil {
		return false
	}
	code := string(m["errcode"])
	return code == "40001" || code == "42001" || code == "40014"
}
