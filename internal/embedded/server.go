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
)

// Variables that errors name.
const (
	listenVariable = "WXKEEPER_NATS_LISTEN"
	dirVariable    = "WXKEEPER_DATA_DIR"
)

// Config is the address, the store and the authentication of the server.
type Config struct {
	Listen  string // host:port; port 0 means a free port. Beyond the loopback it needs a User or a Token.
	DataDir string // directory of the store; created with mode 0700 if it does not exist

	// Clients authenticate with User and Password, or with Token; if all are empty, every client is accepted.
	User     string
	Password redact.Secret
	Token    redact.Secret

	Logger *slog.Logger // nil: nothing is logged
}

// Server is a running server. Its methods are safe for concurrent use.
type Server struct {
	ns   *server.Server
	cfg  Config
	lock *dirLock
	once sync.Once
}

// Start starts the server and returns when clients can connect. Its error contains what to change. It refuses
// an address beyond the loopback without authentication, an address in use, a directory that another process
// uses, and a directory that other users can read if its mode cannot be changed or other programs use it.
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
	lock, err := lockDir(cfg.DataDir)
	switch {
	case errors.Is(err, errLocked):
		return nil, directoryInUse(cfg.DataDir)
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

// directoryInUse is the error for a directory that another server uses. It contains that server's URL, because the
// addresses in this process's environment may be different ones.
func directoryInUse(dir string) error {
	o := readOwner(dir)
	process, join := "another wxkeeper", "NATS_URL (the first one logs its URL)"
	if o.PID != 0 {
		process = fmt.Sprintf("another wxkeeper (pid %d)", o.PID)
	}
	if o.URL != "" {
		join = "NATS_URL=" + o.URL
	}
	return fmt.Errorf("the data directory %s is in use by %s: a second worker on this machine joins it with %s; "+
		"for a separate server set %s to another directory", dir, process, join, dirVariable)
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
	switch {
	case c.DataDir == "":
		// nats-server would use a shared directory within the system's temporary directory.
		return "", 0, setting.Errorf(dirVariable, "the embedded NATS server needs a directory")
	case (c.User == "") != (c.Password == ""):
		return "", 0, setting.Errorf("NATS_USER, NATS_PASSWORD", "the embedded NATS server needs both or neither")
	case c.User != "" && c.Token != "":
		return "", 0, setting.Errorf("NATS_USER, NATS_TOKEN",
			"the embedded NATS server uses only one of them: unset the other")
	case !loopback.Host(host) && c.User == "" && c.Token == "":
		return "", 0, setting.Errorf(listenVariable,
			"%s can be reached from other machines, which needs authentication: "+
				"set NATS_USER and NATS_PASSWORD, or NATS_TOKEN, or listen on 127.0.0.1:%d", c.Listen, port)
	}
	return host, port, nil
}

func (s *Server) start(host string, port int) error {
	if port == 0 {
		port = server.RANDOM_PORT
	}
	log := &bridge{log: s.cfg.Logger}
	ns, err := server.NewServer(&server.Options{
		ServerName: "wxkeeper",
		Host:       host,
		Port:       port,
		MaxPayload: maxPayload,

		Username:      s.cfg.User,
		Password:      s.cfg.Password.Reveal(),
		Authorization: s.cfg.Token.Reveal(),

		JetStream:              true,
		StoreDir:               s.cfg.DataDir,
		JetStreamMaxMemory:     maxMemory,
		JetStreamMaxStore:      maxStore,
		JetStreamLimits:        server.JSLimitOpts{DefaultMaxConsumers: maxConsumers},
		SyncAlways:             true, // the default syncs every two minutes: a power cut could restore an old fence
		DisableJetStreamBanner: true,

		NoSigs: true, // its handlers of SIGINT and SIGTERM would end the process before the worker has stopped
		NoLog:  true, // its logger is set below

		LameDuckGracePeriod: time.Second,
		LameDuckDuration:    2 * time.Second,
	})
	if err != nil {
		return fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	ns.SetLoggerV2(log, false, false, false)
	s.ns = ns

	// Start returns when the listener is open. If it cannot be opened, only the logger receives the error.
	ns.Start()
	if err := log.fatal(); err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return addressInUse(s.cfg.Listen)
		}
		return fmt.Errorf("start the embedded NATS server on %s with the data directory %s: %w", s.cfg.Listen,
			s.cfg.DataDir, err)
	}
	if !ns.ReadyForConnections(readyWait) {
		return fmt.Errorf("the embedded NATS server on %s was not ready within %s", s.cfg.Listen, readyWait)
	}
	if err := s.lock.write(owner{PID: os.Getpid(), URL: s.URL()}); err != nil {
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

// InProcess returns the option for a client in this process: it connects through memory, with the server's
// own credentials, and ignores its URL. Close the connection before Shutdown: otherwise it would try to
// reconnect until the process exits.
func (s *Server) InProcess() nats.Option {
	return func(o *nats.Options) error {
		o.InProcessServer = s.ns
		o.User, o.Password, o.Token = s.cfg.User, s.cfg.Password.Reveal(), s.cfg.Token.Reveal()
		return nil
	}
}

// Shutdown stops the server, waits until its store is closed, and unlocks the directory. It may be called
// more than once.
func (s *Server) Shutdown() {
	s.once.Do(func() {
		if s.ns != nil {
			s.ns.Shutdown()
			s.ns.WaitForShutdown()
		}
		s.lock.release()
	})
}
