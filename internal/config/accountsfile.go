package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/utf8text"
)

// addFile adds the accounts of WECHAT_ACCOUNTS_FILE.
func (c *Config) addFile(l *accountList) error {
	entries, err := readAccounts(c.AccountsFile)
	if err != nil {
		return err
	}
	for i, e := range entries {
		var field string
		switch {
		case e.AppID == "":
			err = errors.New("the appid is missing")
		case e.Secret != "" && e.SecretFile != "":
			err = errors.New("it has both a secret and a secret_file: keep one of them")
		case e.Secret == "" && e.SecretFile == "":
			err = errors.New("it has neither a secret nor a secret_file")
		default:
			if field, err = c.addEntry(l, e, fmt.Sprintf("account %d of %s", i+1, accountsFile)); err != nil {
				err = fmt.Errorf("%s: %w", field, err)
			}
		}
		if err != nil {
			return fmt.Errorf("account %d: %w", i+1, err)
		}
	}
	if len(l.accounts) == 0 {
		return errors.New("the array has no account, for example [{\"appid\": \"wx…\", \"secret_file\": " +
			"\"wx….secret\"}]")
	}
	return nil
}

// readAccounts reads the accounts file. It refuses unknown fields, because a misspelled "secret_file" must
// not start a worker without the secret.
func readAccounts(file string) ([]entry, error) {
	b, err := utf8text.ReadFile(file)
	if err != nil {
		return nil, err
	}
	defer clear(b) // it has secrets
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var entries []entry
	if err := d.Decode(&entries); err != nil {
		return nil, explainJSON(err, b, d.InputOffset())
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("line %d: there is more text after the end of the array", line(b, d.InputOffset()))
	}
	dir := filepath.Dir(file)
	for i, e := range entries {
		if e.SecretFile != "" && !filepath.IsAbs(e.SecretFile) {
			entries[i].SecretFile = filepath.Join(dir, e.SecretFile)
		}
	}
	return entries, nil
}

var unknownField = regexp.MustCompile(`unknown field "([a-z_]{1,24})"`)

// explainJSON describes where the fault is. It does not quote the text there, which may be a secret.
func explainJSON(err error, b []byte, offset int64) error {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("line %d: this is not JSON: %w", line(b, syntax.Offset), err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errors.New("this is not JSON: it ends too early")
	case errors.As(err, &typ) && typ.Field == "":
		return fmt.Errorf("line %d: an array of objects is needed: [{\"appid\": …}, …]", line(b, typ.Offset))
	case errors.As(err, &typ):
		kind := "a string"
		if strings.HasSuffix(typ.Field, "tickets") && typ.Type.Kind().String() == "slice" {
			kind = "an array of strings"
		}
		return fmt.Errorf("line %d: %q must be %s", line(b, typ.Offset), typ.Field, kind)
	}
	what := "a field"
	if m := unknownField.FindStringSubmatch(err.Error()); m != nil {
		what = fmt.Sprintf("the field %q", m[1])
	}
	return fmt.Errorf("line %d: %s is not known: write appid, secret, secret_file, name, token_api, tickets",
		line(b, offset), what)
}

func line(b []byte, offset int64) int {
	return 1 + bytes.Count(b[:min(offset, int64(len(b)))], []byte("\n"))
}
