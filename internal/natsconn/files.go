package natsconn

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/wxkeeper/wxkeeper/internal/utf8text"
)

// The options below read their files as those of nats.go with the same purpose do: now, to find faults, and again for
// each connection, because files are rotated. Those of nats.go do not understand a byte order mark: of a file with
// several certificates they would silently leave out the first.

// credentials authenticates with the user JWT and the seed of a credentials file.
func credentials(file string) (nats.Option, error) {
	token := func() (string, error) {
		b, err := readText(file)
		if err != nil {
			return "", err
		}
		defer clear(b) // it contains a private key
		text, err := nkeys.ParseDecoratedJWT(b)
		if err != nil {
			return "", fmt.Errorf("%s has no user JWT", file)
		}
		return text, nil
	}
	if _, err := token(); err != nil {
		return nil, err
	}
	if _, err := publicKey(file); err != nil {
		return nil, err
	}
	return nats.UserJWT(token, signer(file)), nil
}

// nkey authenticates with the seed in a file.
func nkey(file string) (nats.Option, error) {
	public, err := publicKey(file)
	if err != nil {
		return nil, err
	}
	return nats.Nkey(public, signer(file)), nil
}

func publicKey(file string) (string, error) {
	kp, err := readSeed(file)
	if err != nil {
		return "", err
	}
	defer kp.Wipe()
	return kp.PublicKey()
}

// signer signs the nonce of a server. It keeps no private key in memory.
func signer(file string) nats.SignatureHandler {
	return func(nonce []byte) ([]byte, error) {
		kp, err := readSeed(file)
		if err != nil {
			return nil, err
		}
		defer kp.Wipe()
		return kp.Sign(nonce)
	}
}

// readSeed returns the key pair of the user seed in a file. Its error does not show the content.
func readSeed(file string) (nkeys.KeyPair, error) {
	b, err := readText(file)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	kp, err := nkeys.ParseDecoratedUserNKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s has no user seed", file)
	}
	return kp, nil
}

// authorities trusts the certificates of a PEM file.
func authorities(file string) (nats.Option, error) {
	pool := func() (*x509.CertPool, error) {
		b, err := readText(file)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("%s has no PEM certificate", file)
		}
		return pool, nil
	}
	if _, err := pool(); err != nil {
		return nil, err
	}
	return withTLS(func(o *nats.Options) { o.RootCAsCB = pool }), nil
}

// certificate authenticates with the certificate and the key of two PEM files.
func certificate(cert, key string) (nats.Option, error) {
	pair := func() (tls.Certificate, error) {
		c, err1 := readText(cert)
		k, err2 := readText(key)
		defer clear(k)
		if err := cmp.Or(err1, err2); err != nil {
			return tls.Certificate{}, err
		}
		pair, err := tls.X509KeyPair(c, k)
		if err != nil {
			return pair, fmt.Errorf("%s, %s: %w", cert, key, err)
		}
		return pair, nil
	}
	if _, err := pair(); err != nil {
		return nil, err
	}
	return withTLS(func(o *nats.Options) { o.TLSCertCB = pair }), nil
}

// withTLS makes an option that needs TLS.
func withTLS(set func(*nats.Options)) nats.Option {
	return func(o *nats.Options) error {
		set(o)
		o.Secure = true
		if o.TLSConfig == nil {
			o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		return nil
	}
}

// readText reads a file. Its error names the file.
func readText(file string) ([]byte, error) {
	b, err := utf8text.ReadMarked(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return b, nil
}
