package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/loopback"
	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/internal/setting"
)

const (
	// maxMemory and maxStore limit JetStream. The defaults of nats-server are three quarters of the memory
	// and of the free disk space. Ten thousand accounts need some tens of megabytes.
	maxMemory = 64 << 20
	maxStore  = 1 << 30

	maxPayload = 1 << 20

	// maxConsumers limits the Readers that watch one bucket: each has one JetStream consumer. The default is 1,000.
	maxConsumers = 10_000

	// readyWait limits the time from the open listener to the first connection. The store has been recovered
	// by then, so only a hang, or a machine without any CPU time left, takes so long.
	readyWait = time.Minute

	// minPassword is the least length of a password or token that was configured. (A generated token has 52 characters.)
	// A guesser has 32 tries a second, so the limit is against words and birthdays. On the loopback it is a warning,
	// because only users of this machine can guess there.
	minPassword = 16
)

// Variables that errors name.
const (
	listenVariable = "WXKEEPER_NATS_LISTEN"
	dirVariable    = "WXKEEPER_DATA_DIR"
	openVariable   = "WXKEEPER_NATS_OPEN"
)

// Config is the address, the store and the authentication of the server.
type Config struct {
	Listen  string // host:port; port 0 means a free port
	DataDir string // directory of the store and the tokens; created with mode 0700 if it does not exist

	Exports Exports // what consumers see of the workers' account

	// Consumers authenticate with User and Password, or with Token; if all are empty, with a token that the server
	// generates and keeps in DataDir. Workers always authenticate with another generated token.
	User     string
	Password redact.Secret
	Token    redact.Secret
	Open     bool // every client is accepted as a consumer; only on the loopback

	Logger *slog.Logger // nil: nothing is logged
}

// syncInterval is how often the store is synced to the disk: what a power cut may lose. A lost second does no harm
// (docs/architecture.md#power). The default of nats-server is two minutes; a sync for each message makes the start with
// many accounts much slower.
const syncInterval = time.Second

// Server is a running server. Its methods are safe for concurrent use.
type Server struct {
	ns    *server.Server
	cfg   Config
	lock  *dirLock
	guard *guard
	log   *bridge
	once  sync.Once
}

// Start starts the server and returns when clients can connect. Its error contains what to change. It refuses
// an address in use, a directory that another process uses, and a directory or file that other users could read or
// have put there.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	host, port, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start the embedded NATS server: %w", err)
	}
	if err := prepareDir(cfg.DataDir); err != nil {
		return nil, err
	}
	lock, err := lockDir(ctx, cfg.DataDir)
	switch {
	case errors.Is(err, errLocked):
		return nil, directoryInUse(cfg.DataDir)
	case errors.As(err, new(*setting.Error)):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("lock the data directory %s: %w", cfg.DataDir, err)
	}

	s := &Server{cfg: cfg, lock: lock}
	if err := s.start(host, port); err != nil {
		s.Shutdown()
		return nil, err
	}
	return s, nil
}

// addressInUse is the error for an address on which another process listens.
func addressInUse(listen string) error {
	return fmt.Errorf("another process listens on %s: set %s to another address, or NATS_URL=%s to join the NATS "+
		"server at this address", listen, listenVariable, "nats://"+loopback.Reachable(listen))
}

func (c Config) validate() (host string, port int, err error) {
	host, p, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return "", 0, setting.Errorf(listenVariable, "%q is not host:port, for example 127.0.0.1:4222", c.Listen)
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, setting.Errorf(listenVariable, "%q has no port from 0 to 65535", c.Listen)
	}
	variable, password := c.configured()
	switch {
	case c.DataDir == "":
		// nats-server would use a shared directory within the system's temporary directory.
		return "", 0, setting.Errorf(dirVariable, "the embedded NATS server needs a directory")
	case (c.User == "") != (c.Password == ""):
		return "", 0, setting.Errorf("NATS_USER, NATS_PASSWORD", "the embedded NATS server needs both or neither")
	case c.User != "" && c.Token != "":
		return "", 0, setting.Errorf("NATS_USER, NATS_TOKEN",
			"the embedded NATS server uses only one of them: unset the other")
	case c.Open && variable != "":
		return "", 0, setting.Errorf(openVariable, "%s is set too: an open server demands none, so unset one of them",
			variable)
	case c.Open && !loopback.Host(host):
		return "", 0, setting.Errorf(openVariable, "%s=%s can be reached from other machines, which needs "+
			"authentication: unset %s, or listen on 127.0.0.1:%d", listenVariable, c.Listen, openVariable, port)
	case !loopback.Host(host) && variable != "" && len(password) < minPassword:
		return "", 0, setting.Errorf(variable, "%s=%s can be reached from other machines, and the value has fewer than "+
			"%d characters: set a longer one, or unset it and use the generated token (wxkeeper nats-env)",
			listenVariable, c.Listen, minPassword)
	}
	return host, port, nil
}

// configured returns the variable that has the password or token of consumers, and its value; "" if there is none.
func (c Config) configured() (variable string, password redact.Secret) {
	switch {
	case c.User != "":
		return "NATS_PASSWORD", c.Password
	case c.Token != "":
		return "NATS_TOKEN", c.Token
	}
	return "", ""
}

// prepareGuard reads or creates the tokens. The directory is locked.
func (s *Server) prepareGuard(host string) (access, error) {
	worker, err := ensureToken(s.cfg.DataDir, workerTokenName)
	if err != nil {
		return "", err
	}
	consumer := credentials{s.cfg.Token, s.cfg.User, s.cfg.Password}
	demanded := byEnvironment
	variable, password := s.cfg.configured()
	switch {
	case s.cfg.Open:
		demanded = forAll
	case variable == "":
		demanded = byToken
		if consumer.token, err = ensureToken(s.cfg.DataDir, consumerTokenName); err != nil {
			return "", err
		}
	case len(password) < minPassword:
		s.cfg.Logger.Warn("a short password or token can be guessed", "variable", variable, "least", minPassword)
	}
	if !loopback.Host(host) {
		s.cfg.Logger.Warn("the embedded NATS server is reachable from other machines and has no TLS: credentials, and "+
			"the tokens of its clients, cross the network in the clear", "variable", listenVariable)
	}
	s.guard = newGuard(s.cfg.Open, credentials{token: worker}, consumer, s.cfg.Logger)
	return demanded, nil
}

func (s *Server) start(host string, port int) error {
	if port == 0 {
		port = server.RANDOM_PORT
	}
	demanded, err := s.prepareGuard(host)
	if err != nil {
		return err
	}
	s.log = newBridge(s.cfg.Logger)
	opts := &server.Options{
		ServerName: "wxkeeper",
		Host:       host,
		Port:       port,
		MaxPayload: maxPayload,

		CustomClientAuthentication: s.guard,

		JetStream:              true,
		StoreDir:               s.cfg.DataDir,
		JetStreamMaxMemory:     maxMemory,
		JetStreamMaxStore:      maxStore,
		JetStreamLimits:        server.JSLimitOpts{DefaultMaxConsumers: maxConsumers},
		SyncInterval:           syncInterval,
		DisableJetStreamBanner: true,

		NoSigs: true, // its handlers of SIGINT and SIGTERM would end the process before the worker has stopped
		NoLog:  true, // its logger is set below

		LameDuckGracePeriod: time.Second,
		LameDuckDuration:    2 * time.Second,
	}
	if err := opts.ProcessConfigString(s.cfg.Exports.accounts()); err != nil {
		return fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	ns, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	ns.SetLoggerV2(s.log, false, false, false)
	if err := s.guard.register(ns); err != nil {
		return fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	s.ns = ns

	// Start returns when the listener is open. If it cannot be opened, only the logger receives the error.
	ns.Start()
	if err := s.log.fatal(); err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return addressInUse(s.cfg.Listen)
		}
		return fmt.Errorf("start the embedded NATS server on %s with the data directory %s: %w", s.cfg.Listen,
			s.cfg.DataDir, err)
	}
	if !ns.ReadyForConnections(readyWait) {
		return fmt.Errorf("the embedded NATS server on %s was not ready within %s", s.cfg.Listen, readyWait)
	}
	if err := s.lock.write(owner{PID: os.Getpid(), URL: s.URL(), Consumers: demanded}); err != nil {
		s.cfg.Logger.Warn("lock file of the data directory not written", "data_dir", s.cfg.DataDir, "error", err)
	}
	s.cfg.Logger.Info("embedded NATS server started", "url", s.URL(), "data_dir", s.cfg.DataDir)
	return nil
}

// URL returns the URL for clients on this machine. It contains no credentials.
func (s *Server) URL() string {
	addr, ok := s.ns.Addr().(*net.TCPAddr)
	if !ok { // the server is shut down: return the configured address
		return s.ns.ClientURL()
	}
	host, _, _ := net.SplitHostPort(s.cfg.Listen) // Start has validated it
	return "nats://" + loopback.Reachable(net.JoinHostPort(host, strconv.Itoa(addr.Port)))
}

// InProcess returns the option for a client in this process: it connects through memory, as a worker, and ignores its
// URL. Close the connection before Shutdown: otherwise it would try to reconnect until the process exits.
func (s *Server) InProcess() nats.Option { return nats.InProcessServer(s.ns) }

// Shutdown stops the server, waits until its store is closed, and unlocks the directory. It may be called
// more than once.
func (s *Server) Shutdown() {
	s.once.Do(func() {
		if s.guard != nil {
			s.guard.stop()
		}
		if s.ns != nil {
			s.ns.Shutdown()
			s.ns.WaitForShutdown()
			s.log.stop()
		}
		s.lock.release()
	})
}
