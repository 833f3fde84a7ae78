package wechat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// describe returns the structure of a body that could not be used: the names, types and lengths of its members, and
// no value, because any value may be a marketing code, a credential or an openid. It has at most maxExcerpt bytes, and
// is empty for an empty body.
//
//	{errcode: number(1), errmsg: string(2), code: number(9)}
//
// In brackets are the bytes of a string, the characters of a number, or the elements of an array.
func describe(body []byte) string {
	size := fmt.Sprintf("of %d bytes", len(body))
	if len(body) > maxBody {
		size = "of more than 1 MiB"
	}
	text := bytes.Trim(bytes.TrimPrefix(body, byteOrderMark), " \t\r\n")
	switch {
	case len(text) == 0:
		return ""
	case text[0] == '{' || text[0] == '[':
		_, escaped := escapeControls(text)
		d := &describer{Decoder: json.NewDecoder(bytes.NewReader(escaped))}
		d.UseNumber()
		if err := d.value(0); err != nil {
			d.out.WriteString("…")
		}
		if s := d.out.String(); len(s) <= maxExcerpt {
			return s
		}
		return clip(d.out.String(), maxExcerpt-len("…")) + "…"
	case text[0] == '<':
		return "a page (HTML or XML) " + size
	case utf8.Valid(text) && !bytes.ContainsFunc(text, isInvisible):
		return "text " + size
	}
	return "binary data " + size
}

func isInvisible(r rune) bool { return unicode.IsControl(r) && !unicode.IsSpace(r) }

// memberNames are the names of members that a description shows: those that WeChat documents for the interfaces of
// this package, and those that relays and gateways use. Other names are text from elsewhere, and may be a secret.
var memberNames = strings.Fields(`
	errcode errmsg access_token expires_in ticket ip_list rid
	code application_id isv_application_id activity_name product_brand product_title product_code wxa_appid wxa_path
	code_start code_end
	body code_ticket data detail details error error_code error_description error_msg errors info message msg name
	openid path reason request_id requestId response result results ret retcode retmsg status success timestamp title
	token trace_id traceId type value`)

// maxDepth is how many levels of objects a description shows.
const maxDepth = 2

// describer writes the structure of a JSON text, as far as the text is JSON.
type describer struct {
	*json.Decoder
	out strings.Builder
}

// value describes the next value.
func (d *describer) value(depth int) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	return d.describe(token, depth)
}

func (d *describer) describe(token json.Token, depth int) error {
	switch v := token.(type) {
	case json.Delim:
		if v == '[' || depth >= maxDepth {
			return d.count(v)
		}
		return d.object(depth)
	case string:
		fmt.Fprintf(&d.out, "string(%d)", len(v))
	case json.Number:
		fmt.Fprintf(&d.out, "number(%d)", len(v))
	case bool:
		d.out.WriteString("boolean")
	default:
		d.out.WriteString("null")
	}
	return nil
}

func (d *describer) object(depth int) error {
	d.out.WriteString("{")
	for separator := ""; d.More() && d.out.Len() <= maxExcerpt; separator = ", " {
		token, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		if !slices.Contains(memberNames, name) {
			name = fmt.Sprintf("<%d bytes>", len(name))
		}
		d.out.WriteString(separator + name + ": ")
		if err := d.value(depth + 1); err != nil {
			return err
		}
	}
	if d.out.Len() > maxExcerpt {
		return nil // it is cut off
	}
	_, err := d.Token()
	if err == nil {
		d.out.WriteString("}")
	}
	return err
}

// count describes an array, or an object that is too deep, by the number of its elements.
func (d *describer) count(open json.Delim) error {
	n, depth := 0, 1
	for depth > 0 {
		token, err := d.Token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('['), json.Delim('{'):
			if depth++; depth == 2 {
				n++
			}
		case json.Delim(']'), json.Delim('}'):
			depth--
		default:
			if depth == 1 {
				n++
			}
		}
	}
	if open == '{' {
		fmt.Fprintf(&d.out, "object(%d)", n/2)
		return nil
	}
	fmt.Fprintf(&d.out, "array(%d)", n)
	return nil
}
