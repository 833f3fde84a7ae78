package wechattest

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// valueFields are the fields with the value that a caller wants, by endpoint.
var valueFields = [endpoints]string{"access_token", "access_token", "ticket", "code", "ip_list"}

// fakeSuccess returns a success without effect: its value was never issued.
func (s *Simulator) fakeSuccess(ep endpoint) answer {
	switch ep {
	case epToken, epStable:
		return tokenAnswer(newToken(), s.cfg.TokenLife)
	case epTicket:
		return ticketAnswer(newTicket(), s.cfg.TicketLife)
	case epCode:
		return answer{body: []byte(sampleReply)}
	default:
		return answer{body: []byte(domainIPReply)}
	}
}

// writeCorrupt sends an answer with the Status and Body of the fault.
func (s *Simulator) writeCorrupt(w http.ResponseWriter, ep endpoint, f *Fault, a answer) {
	status := f.Status
	if status == 0 {
		status = http.StatusOK
	}
	page := fmt.Sprintf("<html>\r\n<head><title>%d %s</title></head>\r\n"+
		"<body><center>nginx</center></body>\r\n</html>\r\n", status, http.StatusText(status))
	body, typ := a.body, contentType
	switch {
	case strings.HasPrefix(f.Body, rawBody):
		body = []byte(strings.TrimPrefix(f.Body, rawBody))
	case f.Body == "html" || f.Body == "" && f.Status != 0 && f.Errcode == 0:
		body, typ = []byte(page), "text/html"
	case f.Body == "cut":
		w.Header().Set("Content-Type", typ)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(status)
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush() // otherwise net/http would send nothing
		panic(http.ErrAbortHandler)
	case f.Body == "gzip":
		w.Header().Set("Content-Encoding", "gzip")
		body = compress(body)
	case f.Body != "":
		body = corrupt(ep, f.Body, body)
	}
	if status == http.StatusNoContent || status == http.StatusNotModified {
		body = nil // HTTP allows no body
	}
	write(w, status, typ, body)
}

// corrupt corrupts a body in the way that kind names: see Fault.Body.
func corrupt(ep endpoint, kind string, body []byte) []byte {
	switch kind {
	case "empty":
		return nil
	case "truncated":
		return body[:len(body)/2]
	case "binary":
		return bytes.Repeat([]byte{0x00, 0xff, 0xfe, 0x1f, 0x8b, 0x08, 0x80}, 32)
	}
	fields, ok := readObject(body)
	if !ok {
		return body // a reply of AddCode that is not an object
	}
	value := valueFields[ep]
	switch kind {
	case "huge":
		// At the beginning, so that a client that reads only the first MiB does not find the value.
		fields = append([]field{{"padding", quote(strings.Repeat("x", 1<<20+1))}}, fields...)
	case "wrong_type":
		for i, f := range fields {
			switch f.name {
			case "expires_in":
				fields[i].value = quote(string(f.value))
			case "code":
				fields[i].value = json.RawMessage("8")
			case "ip_list":
				fields[i].value = quote("203.0.113.18")
			}
		}
	case "short_life":
		set(fields, "expires_in", json.RawMessage("1"))
	case "zero_life":
		set(fields, "expires_in", json.RawMessage("0"))
	case "no_value":
		kept := fields[:0]
		for _, f := range fields {
			if f.name != value {
				kept = append(kept, f)
			}
		}
		fields = kept
	case "empty_value":
		if ep == epDomainIP {
			set(fields, value, json.RawMessage("[]"))
		} else {
			set(fields, value, quote(""))
		}
	case "long_value":
		set(fields, value, quote(randomText(3<<10)))
	case "raw_control":
		fields = append(fields, field{"note", json.RawMessage("\"two\nlines\"")})
	case "unprintable_value":
		set(fields, value, quote("97_\x00\x07\r\n\x7f"+randomText(64)))
	}
	return writeObject(fields)
}

func compress(body []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(body) // into memory
	_ = z.Close()
	return b.Bytes()
}

// field is one member of a JSON object. A slice of fields keeps their order, which a caller can see.
type field struct {
	name  string
	value json.RawMessage
}

func readObject(b []byte) ([]field, bool) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	var out []field
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, false
		}
		var v json.RawMessage
		if d.Decode(&v) != nil {
			return nil, false
		}
		out = append(out, field{name.(string), v}) // a name is always a string
	}
	_, err := d.Token()
	return out, err == nil
}

func writeObject(fields []field) []byte {
	b := []byte{'{'}
	for i, f := range fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, quote(f.name)...), ':'), f.value...)
	}
	return append(b, '}')
}

func set(fields []field, name string, value json.RawMessage) {
	for i := range fields {
		if fields[i].name == name {
			fields[i].value = value
		}
	}
}

func quote(s string) json.RawMessage {
	b, _ := json.Marshal(s) // a string always encodes
	return b
}
