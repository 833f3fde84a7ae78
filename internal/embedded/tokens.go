package embedded

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/internal/setting"
	"github.com/wxkeeper/wxkeeper/internal/utf8text"
)

// The files in the data directory that have the tokens of clients. The server creates a file that is missing.
const (
	consumerTokenName = "nats.token"
	workerTokenName   = "nats.worker.token"
)

const tokenBytes = 32

var encoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// ensureToken reads a token file, or creates it. The caller has locked the directory.
func ensureToken(dir, name string) (redact.Secret, error) {
	file := filepath.Join(dir, name)
	token, err := readToken(file, false)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	f, err := createOwn(file)
	if err != nil {
		return "", setting.Errorf(dirVariable, "create the token file: %w", err)
	}
	random := make([]byte, tokenBytes)
	_, _ = rand.Read(random) // it never fails
	text := encoding.EncodeToString(random)
	_, err = io.WriteString(f, text+"\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(file) // half a token would stop every later start
		return "", setting.Errorf(dirVariable, "write the token file %s: %w", file, err)
	}
	return redact.Secret(text), nil
}

// readToken reads a token file. Its error is fs.ErrNotExist, or a [setting.Error].
func readToken(file string, asRoot bool) (redact.Secret, error) {
	f, err := openOwn(file, os.O_RDONLY, asRoot)
	if errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err != nil {
		return "", setting.Errorf(dirVariable, "the token file %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", setting.Errorf(dirVariable, "the token file %w", err)
	}
	if mode := fi.Mode().Perm(); mode&0o077 != 0 {
		return "", setting.Errorf(dirVariable, "the token file %s has mode %04o, and other users may have read it: "+
			"delete it and restart wxkeeper run, which creates a new token", file, mode)
	}
	b, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return "", setting.Errorf(dirVariable, "read the token file %s: %w", file, err)
	}
	if b, err = utf8text.Decode(b, "the token file "+file); err != nil {
		return "", setting.Errorf(dirVariable, "%w", err)
	}
	text := strings.TrimRight(string(b), "\r\n")
	if raw, err := encoding.DecodeString(text); err != nil || len(raw) != tokenBytes {
		return "", setting.Errorf(dirVariable, "the token file %s has no token of wxkeeper: "+
			"delete it and restart wxkeeper run, which creates a new token", file)
	}
	return redact.Secret(text), nil
}

// describe names the file in an error of the os package.
func describe(file string, err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return fmt.Errorf("%s: %w", file, err)
}
