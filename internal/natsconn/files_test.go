package natsconn_test

import (
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/wxkeeper/wxkeeper/internal/natsconn"
)

const mark = "\ufeff" // the byte order mark

// marked writes a file as Windows' Notepad saves it: with a byte order mark and CR LF.
func marked(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	text = mark + strings.ReplaceAll(text, "\n", "\r\n")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestFilesWithAByteOrderMarkAreRead(t *testing.T) {
	t.Parallel()
	h := httptest.NewTLSServer(nil) // for its certificate
	h.Close()
	key, err := x509.MarshalPKCS8PrivateKey(h.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err1 := user.PublicKey()
	seed, err2 := user.Seed()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	certificate := pemOf("CERTIFICATE", h.Certificate().Raw)
	cfg := natsconn.Config{
		URL: rawServer(t, &server.Options{TLSConfig: h.TLS, TLSTimeout: patience.Seconds(),
			Nkeys: []*server.NkeyUser{{Nkey: public}}}),
		NKey: marked(t, string(seed)+"\n"), CA: marked(t, certificate),
		Cert: marked(t, certificate), Key: marked(t, pemOf("PRIVATE KEY", key)),
	}
	reaches(t, connect(t, cfg))

	i := newIssuer(t)
	file := filepath.Join(t.TempDir(), "worker.creds")
	i.user(file)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	resolver := &server.MemAccResolver{}
	if err := resolver.Store(i.public(i.account), i.signed()); err != nil {
		t.Fatal(err)
	}
	s := startRaw(t, &server.Options{TrustedKeys: []string{i.public(i.operator)}, AccountResolver: resolver})
	reaches(t, connect(t, natsconn.Config{URL: s.ClientURL(), Creds: marked(t, string(b))}))
}

func TestFilesInUTF16AreNamed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "S3-file")
	if err := os.WriteFile(file, []byte("\xff\xfeS\x003\x00C\x00R\x00E\x00T\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	for variable, cfg := range map[string]natsconn.Config{
		"NATS_CREDS": {Creds: file}, "NATS_NKEY": {NKey: file}, "NATS_CA": {CA: file},
		"NATS_CERT": {Cert: file, Key: file},
	} {
		fails(t, cfg, variable, file, "this file is UTF-16: save it as UTF-8")
	}
}
