package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// readAccounts refuses what it does not know, because a misspelled "secret_file" must not start a worker without it.
func readAccounts(file string) ([]entry, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, withoutPath(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var entries []entry
	if err := d.Decode(&entries); err != nil {
		return nil, explainJSON(err, b, d.InputOffset())
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("line %d: something stands behind the end of the array", line(b, d.InputOffset()))
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

// explainJSON says where the fault is, and never what stands there: it may be a secret.
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
	return fmt.Errorf("line %d: %s is not known: write appid, secret, secret_file, name, token_api, tickets", line(b, offset), what)
}

func line(b []byte, offset int64) int {
	return 1 + bytes.Count(b[:min(offset, int64(len(b)))], []byte("\n"))
}

// ofFile is the account of an entry of the accounts file.
func (c *Config) ofFile(e entry) (Account, error) {
	if err := checkAppID(e.AppID); err != nil {
		return Account{}, err
	}
	a := Account{AppID: e.AppID}
	var err error
	switch {
	case e.Secret != "" && e.SecretFile != "":
		return Account{}, errors.New("it has both a secret and a secret_file: keep one of them")
	case e.Secret != "":
		if a.Secret, err = checkSecret(string(e.Secret)); err != nil {
			return Account{}, fmt.Errorf("the secret %w", err)
		}
	case e.SecretFile != "":
		if a.Secret, err = readSecret(e.SecretFile); err != nil {
			return Account{}, fmt.Errorf("secret_file: %w", err)
		}
	default:
		return Account{}, errors.New("it has neither a secret nor a secret_file")
	}
	if field, err := c.choices(&a, e); err != nil {
		return Account{}, fmt.Errorf("%s: %w", field, err)
	}
	return a, nil
}
