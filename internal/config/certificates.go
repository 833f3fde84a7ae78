package config

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/utf8text"
)

// readsCertificates is whether Go reads SSL_CERT_FILE and SSL_CERT_DIR on this system.
const readsCertificates = runtime.GOOS != "windows" && runtime.GOOS != "darwin" && runtime.GOOS != "ios"

// Certificates returns the variables that replace the authorities of the system, as NAME=value.
func (c *Config) Certificates() (set []string) {
	for _, v := range []named{{"SSL_CERT_FILE", c.CertFile}, {"SSL_CERT_DIR", c.CertDir}} {
		if v.value != "" && readsCertificates {
			set = append(set, v.name+"="+v.value)
		}
	}
	return set
}

// checkCertFile checks SSL_CERT_FILE.
func checkCertFile(path string) error {
	if path == "" {
		return nil
	}
	found, err := hasCertificate(path)
	switch {
	case err != nil:
		return fmt.Errorf("the certificates of trusted authorities cannot be read: %w", err)
	case !found:
		if _, err := utf8text.ReadMarked(path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return fmt.Errorf("%s has no certificate in PEM form", path)
	}
	return nil
}

// checkCertDirs checks SSL_CERT_DIR. Directories may be missing, if another one has a certificate.
func checkCertDirs(list string) error {
	if list == "" {
		return nil
	}
	var reasons []error
	for dir := range strings.SplitSeq(list, ":") {
		entries, err := os.ReadDir(dir)
		if err != nil {
			reasons = append(reasons, err)
		}
		for _, e := range entries {
			if found, err := hasCertificate(filepath.Join(dir, e.Name())); found && err == nil {
				return nil
			}
		}
	}
	if len(reasons) > 0 {
		return fmt.Errorf("the certificates of trusted authorities cannot be read: %w", reasons[0])
	}
	return fmt.Errorf("%s has no file with a certificate in PEM form", list)
}

// hasCertificate reports whether a file has a certificate in PEM form. A byte order mark in front of one is an error:
// Go reads the file itself, and skips that certificate.
func hasCertificate(path string) (bool, error) {
	switch fi, err := os.Stat(path); {
	case err != nil:
		return false, err
	case !fi.Mode().IsRegular(): // reading a pipe could block
		return false, fmt.Errorf("%s is not a file", path)
	}
	pem, err := os.ReadFile(path)
	if bytes.Contains(pem, []byte("\ufeff-----BEGIN")) {
		return false, fmt.Errorf("%s has a byte order mark in front of a certificate: save it as UTF-8 without one", path)
	}
	return err == nil && x509.NewCertPool().AppendCertsFromPEM(pem), err
}
