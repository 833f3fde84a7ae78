package natsconn_test

import (
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/wxkeeper/wxkeeper/internal/natsconn"
)

// issuer is an operator with one account. It issues users, which the server accepts.
type issuer struct {
	*testing.T
	operator, account nkeys.KeyPair
	claims            *jwt.AccountClaims
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{T: t}
	var err error
	if i.operator, err = nkeys.CreateOperator(); err != nil {
		t.Fatal(err)
	}
	if i.account, err = nkeys.CreateAccount(); err != nil {
		t.Fatal(err)
	}
	i.claims = jwt.NewAccountClaims(i.public(i.account))
	return i
}

func (i *issuer) public(kp nkeys.KeyPair) string {
	i.Helper()
	p, err := kp.PublicKey()
	if err != nil {
		i.Fatal(err)
	}
	return p
}

// signed is the account's JWT.
func (i *issuer) signed() string {
	i.Helper()
	token, err := i.claims.Encode(i.operator)
	if err != nil {
		i.Fatal(err)
	}
	return token
}

// user writes the credentials of a new user atomically to a file, and returns the user's public key.
func (i *issuer) user(file string) string {
	i.Helper()
	kp, err := nkeys.CreateUser()
	if err != nil {
		i.Fatal(err)
	}
	seed, err := kp.Seed()
	if err != nil {
		i.Fatal(err)
	}
	token, err := jwt.NewUserClaims(i.public(kp)).Encode(i.account)
	if err != nil {
		i.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(token, seed)
	if err == nil {
		err = os.WriteFile(file+".new", creds, 0o600)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		i.Fatal(err)
	}
	return i.public(kp)
}

// countingDialer counts the connections that a client makes.
type countingDialer struct{ dials atomic.Int64 }

func (d *countingDialer) Dial(network, address string) (net.Conn, error) {
	d.dials.Add(1)
	return net.DialTimeout(network, address, patience)
}

// The user is revoked, and the file with a new user is written later. Until then the server refuses the
// connection. The connection logs this, does not give up, and reconnects with the new credentials.
func TestRotatedCredentialsAreTakenFromTheirFile(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	resolver := &server.MemAccResolver{}
	account := i.public(i.account)
	if err := resolver.Store(account, i.signed()); err != nil {
		t.Fatal(err)
	}
	s := startRaw(t, &server.Options{TrustedKeys: []string{i.public(i.operator)}, AccountResolver: resolver})
	file := filepath.Join(t.TempDir(), "worker.creds")
	revoked := i.user(file)
	logs, dialer := newRecorder(), new(countingDialer)
	nc := connect(t, natsconn.Config{URL: s.ClientURL(), Creds: file, Logger: logs.logger()},
		nats.SetCustomDialer(dialer), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0))
	reaches(t, nc)

	i.claims.Revoke(revoked)
	before := dialer.dials.Load()
	a, err := s.LookupAccount(account)
	if err != nil {
		t.Fatal(err)
	}
	s.UpdateAccountClaims(a, i.claims)
	logs.wait(t, "NATS refuses this client, trying again")
	late := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for dialer.dials.Load() < before+5 { // by default, nats.go gives up after two equal refusals
		select {
		case <-nc.Closed():
			t.Fatalf("closed: %v", nc.Err())
		case <-late:
			t.Fatal("it does not try to reconnect")
		case <-tick.C:
		}
	}
	i.user(file)
	logs.wait(t, "reconnected to NATS")
	reaches(t, nc)
}
