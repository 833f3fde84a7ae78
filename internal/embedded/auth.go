package embedded

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/wxkeeper/wxkeeper/internal/redact"
)

const (
	// refusalDelay is the time between a wrong token and the refusal.
	refusalDelay = 500 * time.Millisecond

	// maxRefusals limits the refusals that are delayed at the same time. Others wait for them. Together with the
	// delay it limits all guesses to 32 a second, from however many connections they come. Right tokens never wait.
	maxRefusals = 16
)

// credentials are what a client sends: a token, or a user and a password.
type credentials struct {
	token    redact.Secret
	user     string
	password redact.Secret
}

func (c credentials) digest() [sha256.Size]byte {
	return sha256.Sum256([]byte(c.token.Reveal() + "\x00" + c.user + "\x00" + c.password.Reveal()))
}

// guard decides in which account a client is. It is the server's CustomClientAuthentication.
type guard struct {
	open             bool // clients without the token of the workers are consumers
	worker, consumer [sha256.Size]byte

	inWorkers, inConsumers *server.User

	slots   chan struct{} // one element for each refusal that is delayed
	stopped chan struct{}
	refused *perSecond
}

func newGuard(open bool, worker, consumer credentials, log *slog.Logger) *guard {
	return &guard{
		open: open, worker: worker.digest(), consumer: consumer.digest(),
		slots: make(chan struct{}, maxRefusals), stopped: make(chan struct{}),
		refused: newPerSecond(func(times int, from string) {
			log.Warn("NATS client without the right token or password refused", "times", times, "last_from", from)
		}),
	}
}

// register tells the guard the accounts of the server.
func (g *guard) register(ns *server.Server) error {
	for name, user := range map[Account]**server.User{Workers: &g.inWorkers, Consumers: &g.inConsumers} {
		account, err := ns.LookupAccount(string(name))
		if err != nil {
			return err
		}
		*user = &server.User{Account: account}
	}
	return nil
}

// Check is called by the server in the goroutine of the client.
func (g *guard) Check(c server.ClientAuthentication) bool {
	from := c.RemoteAddress()
	if from == nil { // the connection is closed
		return false
	}
	if from.Network() == inProcess {
		c.RegisterUser(g.inWorkers)
		return true
	}
	o := c.GetOpts()
	sent := credentials{redact.Secret(o.Token), o.Username, redact.Secret(o.Password)}.digest()
	// Both comparisons are always made, and take the same time for every token.
	isWorker := subtle.ConstantTimeCompare(sent[:], g.worker[:]) == 1
	isConsumer := subtle.ConstantTimeCompare(sent[:], g.consumer[:]) == 1
	switch {
	case isWorker:
		c.RegisterUser(g.inWorkers)
	case isConsumer, g.open:
		c.RegisterUser(g.inConsumers)
	default:
		host, _, _ := net.SplitHostPort(from.String())
		g.refuse(host)
		return false
	}
	return true
}

// inProcess is the network of a connection in memory, of net.Pipe: no socket has it.
const inProcess = "pipe"

// refuse logs a refusal, and returns after the delay.
func (g *guard) refuse(from string) {
	g.refused.add(from)
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	case <-g.stopped:
		return
	}
	delay := time.NewTimer(refusalDelay)
	defer delay.Stop()
	select {
	case <-delay.C:
	case <-g.stopped:
	}
}

// stop ends all delays: the server waits for the goroutines of its clients.
func (g *guard) stop() {
	close(g.stopped)
	g.refused.stop()
}
