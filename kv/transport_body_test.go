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
	for body, want := range map[string]bool{
		deadAnswer:                                    true,
		`{"errcode":42001,"errmsg":"x"}`:              true,
		`{"errmsg":"x","errcode":40014}`:              true,
		" \t\r\n{ \"errcode\" : 40001 }\n":            true,
		`{"a":{"b":["}"]},"s":"\"{","errcode":40001}`: true,
		`{"errcode":40001} {"more":1}`:                true, // the beginning of a stream

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
			resp := &http.Response{StatusCode: http.StatusOK, ContentLength: length, Body: io.NopCloser(strings.NewReader(body))}
			if got := isDeadToken(resp); got != want {
				t.Errorf("%.80s, Content-Length %d: %v", body, length, got)
			}
			if b, err := io.ReadAll(resp.Body); err != nil || string(b) != body {
				t.Errorf("%.80s became %.80s, %v", body, b, err)
			}
		}
	}
}

// counted counts how much was read of it.
type counted struct {
	io.Reader
	read   int
	closed bool
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.read += n
	return n, err
}

func (c *counted) Close() error { c.closed = true; return nil }

func TestTransportNeverHoldsUpALargeBodyOrAStream(t *testing.T) {
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
		"a compressed answer":       {deadAnswer, -1, http.Header{"Content-Encoding": {"br"}}, 200, 0},
		"a connection taken over":   {deadAnswer, -1, nil, http.StatusSwitchingProtocols, 0},
		"an announced large object": {`{"a":1}`, maxPeek + 1, nil, 200, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// What comes after head is read by the caller alone: the test fails, it does not hang.
			body := &counted{Reader: io.MultiReader(strings.NewReader(c.head), iotest.ErrReader(errors.New("read too far")))}
			resp := &http.Response{StatusCode: c.status, ContentLength: c.length, Header: c.header, Body: body}
			if isDeadToken(resp) {
				t.Error("it was taken for WeChat's error")
			}
			if body.read > c.most {
				t.Errorf("%d bytes were read, want at most %d", body.read, c.most)
			}
			got, err := io.ReadAll(resp.Body)
			if string(got) != c.head || err == nil || err.Error() != "read too far" {
				t.Errorf("%d bytes of %d came through, and %v", len(got), len(c.head), err)
			}
			if resp.Body.Close(); !body.closed {
				t.Error("the body was not closed")
			}
		})
	}
}

// chunked is a body that comes in pieces, some of them empty, and ends with an error.
type chunked struct {
	data   []byte
	random *rand.Rand
	err    error
	closed int
}

func (c *chunked) Read(b []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, c.err
	}
	n := copy(b, c.data[:min(len(c.data), c.random.IntN(1+1<<c.random.IntN(12)))])
	c.data = c.data[n:]
	if len(c.data) == 0 && c.random.IntN(2) == 0 {
		return n, c.err
	}
	return n, nil
}

func (c *chunked) Close() error { c.closed++; return nil }

var errBroken = errors.New("the connection broke")

// FuzzTransportBody: whatever the body and its pieces, the caller reads what WeChat sent and the error at its end, and the
// verdict is that of a decoder which sees all of it.
func FuzzTransportBody(f *testing.F) {
	for i, body := range []string{
		deadAnswer, "", "{", `{"a":[{"b":"}"}],"errcode":42001}`, `{"errcode":40014}trailing`, `  {"errcode":0}`, "\x00binary{}", `{"\"":"\\","errcode":40001}`,
		`{"list":"` + strings.Repeat("x", 2*maxPeek) + `"}`,
	} {
		f.Add([]byte(body), uint64(i), i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, body []byte, seed uint64, breaks bool) {
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
			t.Errorf("taken for dead: %v, want %v: %q", dead, want, body)
		}
		got, err := io.ReadAll(iotest.OneByteReader(resp.Body))
		if !bytes.Equal(got, body) {
			t.Errorf("%q became %q", body, got)
		}
		if (err != nil) != breaks || err != nil && !errors.Is(err, errBroken) {
			t.Errorf("the end is %v", err)
		}
		if resp.Body.Close(); src.closed != 1 {
			t.Errorf("closed %d times", src.closed)
		}
	})
}

// isDead judges a body by the means of encoding/json alone.
func isDead(body []byte) bool {
	d := json.NewDecoder(bytes.NewReader(body[:min(len(body), maxPeek)]))
	var m map[string]json.RawMessage
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' || d.Decode(&m) != nil {
		return false
	}
	code := string(m["errcode"])
	return code == "40001" || code == "42001" || code == "40014"
}
