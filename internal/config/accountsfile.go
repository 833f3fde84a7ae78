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
	"unicode"
)

// entry is one account of WECHAT_ACCOUNTS_FILE. What is null or not there is taken from the environment.
type entry struct {
	AppID      string   `json:"appid"`
	Secret     string   `json:"secret"`
	SecretFile string   `json:"secret_file"` // relative to the folder of the accounts file
	Name       string   `json:"name"`
	TokenAPI   string   `json:"token_api"`
	Tickets    []string `json:"tickets"` // [] and ["none"] keep none
}

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

// account checks e and gives it what it does not say itself.
func (c *Config) account(e entry) (Account, error) {
	if err := checkAppID(e.AppID); err != nil {
		return Account{}, err
	}
	a := Account{AppID: e.AppID, Name: e.Name, TokenAPI: c.TokenAPI, Tickets: c.Tickets}
	var err error
	switch {
	case e.Secret != "" && e.SecretFile != "":
		return Account{}, errors.New("it has both a secret and a secret_file: keep one of them")
	case e.Secret != "":
		if a.Secret, err = checkSecret(e.Secret); err != nil {
			return Account{}, fmt.Errorf("the secret %w", err)
		}
	case e.SecretFile != "":
		if a.Secret, err = readSecret(e.SecretFile); err != nil {
			return Account{}, fmt.Errorf("secret_file: %w", err)
		}
	default:
		return Account{}, errors.New("it has neither a secret nor a secret_file")
	}
	if strings.ContainsFunc(e.Name, unicode.IsControl) || len(e.Name) > 128 {
		return Account{}, errors.New("the name has a control character or more than 128 bytes")
	}
	if e.TokenAPI != "" {
		if err := checkTokenAPI(e.TokenAPI); err != nil {
			return Account{}, fmt.Errorf("token_api: %w", err)
		}
		a.TokenAPI = e.TokenAPI
	}
	if e.Tickets != nil {
		if a.Tickets, err = tickets(e.Tickets); err != nil {
			return Account{}, fmt.Errorf("tickets: %w", err)
		}
	}
	return a, nil
}
