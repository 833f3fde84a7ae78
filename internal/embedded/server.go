package embedded

import (
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
)

const (
	// maxMemory and maxStore bound JetStream. Without them the server takes three quarters of the machine's memory and
	// of the free disk. Ten thousand accounts need some tens of megabytes.
	maxMemory = 64 << 20
	maxStore  = 1 << 30

	maxPayload = 1 << 20

	// maxConsumers bounds the readers of a bucket that watch it: each has a consumer. The server's own bound is 1,000.
	maxConsumers = 10_000

	// readyWait is how long the server may take from its listener to its first connection. The store has been
	// recovered by then, so that only a machine in great trouble needs more.
	readyWait = 10 * time.Second
)

// Config says where the server listens, where it stores, and who may connect.
type Config struct {
	Listen  string // host:port; port 0 takes a free one. Beyond loopback only with a User or a Token.
	DataDir string // directory of the store; made with mode 0700 where it does not exist

	User, Password string // what clients must present; both or neither
	Token          string // the other way to authenticate; not beside User

	Logger *slog.Logger // nil: nothing is logged
}

// Server is a running server. Its methods are safe for concurrent use.
type Server struct {
	ns   *server.Server
	cfg  Config
	lock *dirLock
	once sync.Once
}

// Start starts the server and returns when clients can connect. It refuses, with an error that says what to change, an
// address beyond loopback without authentication, an address that is taken, and a directory that another process uses
// or that other users of the machine can read and that it cannot, or should not, close to them.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	host, port, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("starting the embedded NATS server: %w", err)
	}
	if err := prepareDir(cfg.DataDir); err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.DataDir)
	if errors.Is(err, errLocked) {
		return nil, inUse(cfg.DataDir)
	} else if err != nil {
		return nil, fmt.Errorf("locking the data directory %s: %w", cfg.DataDir, err)
	}

	s := &Server{cfg: cfg, lock: lock}
	if err := s.start(host, port); err != nil {
		s.Shutdown()
		return nil, err
	}
	return s, nil
}

// inUse is the error of a directory that another server has, with where that one is to be found. The addresses of the
// caller's own environment say nothing about it.
func inUse(dir string) error {
	h := readHolder(dir)
	who, join := "another wxkeeper", "NATS_URL (the first one logs its URL)"
	if h.PID != 0 {
		who = fmt.Sprintf("another wxkeeper (pid %d)", h.PID)
	}
	if h.URL != "" {
		join = "NATS_URL=" + h.URL
	}
	return fmt.Errorf("the data directory %s is in use by %s: a second worker on this machine joins it with %s; "+
		"for a server of its own set WXKEEPER_DATA_DIR to another directory", dir, who, join)
}

// taken is the error of an address on which another process listens.
func taken(listen, host string, port int) error {
	return fmt.Errorf("another process listens on %s: set WXKEEPER_NATS_LISTEN to another address, or NATS_URL=%s to join the NATS server that is there",
		listen, joinURL(host, port))
}

func (c Config) validate() (host string, port int, err error) {
	host, p, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return "", 0, fmt.Errorf("WXKEEPER_NATS_LISTEN: %q is not host:port, for example 127.0.0.1:4222", c.Listen)
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("WXKEEPER_NATS_LISTEN: %q has no port between 0 and 65535", c.Listen)
	}
	switch {
	case c.DataDir == "":
		// nats-server would store in a shared folder under the system's temporary directory.
		return "", 0, errors.New("WXKEEPER_DATA_DIR: the embedded NATS server needs a directory")
	case (c.User == "") != (c.Password == ""):
		return "", 0, errors.New("NATS_USER and NATS_PASSWORD: the embedded NATS server needs both or neither")
	case c.User != "" && c.Token != "":
		return "", 0, errors.New("NATS_USER and NATS_TOKEN: the embedded NATS server takes one of them")
	case !loopback(host) && c.User == "" && c.Token == "":
		return "", 0, fmt.Errorf("WXKEEPER_NATS_LISTEN: %s can be reached from beyond this machine, which needs authentication: "+
			"set NATS_USER and NATS_PASSWORD, or NATS_TOKEN, or listen on 127.0.0.1:%d", c.Listen, port)
	}
	return host, port, nil
}

// loopback tells whether only this machine can reach host. A name other than localhost is not trusted to be local: what
// it resolves to can change.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
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
		Password:      s.cfg.Password,
		Authorization: s.cfg.Token,

		JetStream:              true,
		StoreDir:               s.cfg.DataDir,
		JetStreamMaxMemory:     maxMemory,
		JetStreamMaxStore:      maxStore,
		JetStreamLimits:        server.JSLimitOpts{DefaultMaxConsumers: maxConsumers},
		SyncAlways:             true, // the default syncs every two minutes: a power cut could bring an old fence back
		DisableJetStreamBanner: true,

		NoSigs: true, // else it takes SIGINT and SIGTERM and ends the process in the middle of our own stop
		NoLog:  true, // no logger of its own; ours is set below

		LameDuckGracePeriod: time.Second,
		LameDuckDuration:    2 * time.Second,
	})
	if err != nil {
		return fmt.Errorf("configuring the embedded NATS server: %w", err)
	}
	ns.SetLoggerV2(log, false, false, false)
	s.ns = ns

	// Start returns when the listener is open, or has reported to the logger, and nowhere else, why it is not.
	ns.Start()
	if err := log.fatal(); err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return taken(s.cfg.Listen, host, port)
		}
		return fmt.Errorf("starting the embedded NATS server on %s with the data directory %s: %w", s.cfg.Listen, s.cfg.DataDir, err)
	}
	if !ns.ReadyForConnections(readyWait) {
		return fmt.Errorf("the embedded NATS server on %s was not ready within %s", s.cfg.Listen, readyWait)
	}
	if err := s.lock.tell(holder{PID: os.Getpid(), URL: s.URL()}); err != nil {
		s.cfg.Logger.Warn("who uses the data directory could not be written down", "data_dir", s.cfg.DataDir, "error", err)
	}
	s.cfg.Logger.Info("embedded NATS server started", "url", s.URL(), "data_dir", s.cfg.DataDir)
	return nil
}

// URL returns the URL for clients on this machine. It carries no credentials.
func (s *Server) URL() string {
	addr, ok := s.ns.Addr().(*net.TCPAddr)
	if !ok { // shut down: the address it was configured with is the best answer
		return s.ns.ClientURL()
	}
	host, _, err := net.SplitHostPort(s.cfg.Listen)
	if err != nil {
		host = addr.IP.String()
	}
	return joinURL(host, addr.Port)
}

// joinURL is where a client on this machine reaches a server that listens on host.
func joinURL(host string, port int) string {
	switch ip := net.ParseIP(host); {
	case host == "", ip != nil && ip.IsUnspecified() && ip.To4() != nil:
		host = "127.0.0.1"
	case ip != nil && ip.IsUnspecified():
		host = "::1"
	}
	return "nats://" + net.JoinHostPort(host, strconv.Itoa(port))
}

// InProcess returns the option by which a client in this process connects: through memory, with the server's own
// credentials, whatever its URL says. Close the connection before Shutdown: it would try to reconnect for ever.
func (s *Server) InProcess() nats.Option {
	return func(o *nats.Options) error {
		o.InProcessServer = s.ns
		o.User, o.Password, o.Token = s.cfg.User, s.cfg.Password, s.cfg.Token
		return nil
	}
}

// Shutdown stops the server, waits until its store is closed, and unlocks the directory. It may be called twice.
func (s *Server) Shutdown() {
	s.once.Do(func() {
		if s.ns != nil {
			s.ns.Shutdown()
			s.ns.WaitForShutdown()
		}
		s.lock.release()
	})
}
