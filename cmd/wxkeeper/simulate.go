package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/listen"
	"github.com/wxkeeper/wxkeeper/internal/loopback"
	"github.com/wxkeeper/wxkeeper/internal/safetext"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

type simulateVerb struct {
	Listen          string   `default:"127.0.0.1:8090" help:"Address of the WeChat server API; port 0 means a free port."`
	Control         string   `default:"127.0.0.1:8091" help:"Address of the control API (faults, accounts, codes, counters), or none."`
	InsecureControl bool     `help:"Allow --control beyond loopback. Every client that reaches it controls the simulation."`
	Account         []string `placeholder:"APPID:SECRET" sep:"none" help:"An account that exists from the start. May be repeated."`

	TokenLife  time.Duration  `default:"2h" help:"Life of an access_token, in whole seconds."`
	TicketLife time.Duration  `default:"2h" help:"Life of a ticket, in whole seconds."`
	Overlap    *time.Duration `placeholder:"DURATION" help:"How long the old token stays valid beside the new one; 0s: not at all. Default: 5m, at most a third of the life."`
	ForceGap   time.Duration  `default:"30s" help:"Minimum time between two forced refreshes of a stable token; 0s: no minimum."`

	ForcesPerDay    int `default:"20" help:"Limit of forced refreshes of stable_token per day; -1, here and below: no limit."`
	TokensPerDay    int `default:"2000" help:"Limit of successful calls of token per day."`
	StablePerMinute int `default:"10000" help:"Limit of successful calls of stable_token per minute."`
	StablePerDay    int `default:"500000" help:"Limit of successful calls of stable_token per day."`
	TicketsPerDay   int `default:"10000" help:"Limit of calls of getticket per day."`
	CodesPerDay     int `default:"-1" help:"Limit of calls of tickettocode per day."`
	CodesPerMinute  int `default:"-1" help:"Limit of calls of tickettocode per minute."`

	AllowIP []string      `name:"allow-ip" placeholder:"IP" help:"White list: an address or CIDR. May be repeated. Default: every address may call."`
	Latency time.Duration `default:"0s" help:"Delay of every answer."`
	AnyCode bool          `help:"Resolve every code_ticket, for load tests. Without it: only the sample of WeChat's page, and the codes that the control API adds."`
}

func (simulateVerb) Help() string {
	return `The simulated endpoints are /cgi-bin/token, /cgi-bin/stable_token, /cgi-bin/ticket/getticket,
/cgi-bin/get_api_domain_ip and /intp/marketcode/tickettocode. When it serves, it prints one line: "simulated
WeChat ready: api=URL control=URL". SIGINT or SIGTERM stops it.

The control API has /calls, /calls/reset, /faults, /foreign-refresh, /revoke, /judge, /codes, /accounts,
/secrets and /healthz; its page / has a curl command for each.

Examples:

    wxkeeper simulate --account wx1:0123456789abcdef0123456789abcdef
    wxkeeper simulate --account wx1:0123456789abcdef0123456789abcdef --token-life 60s --ticket-life 60s
    curl http://127.0.0.1:8091/
    curl -d '{"endpoint":"stable_token","errcode":-1,"times":3}' http://127.0.0.1:8091/faults
    curl http://127.0.0.1:8091/calls

A worker that uses the simulation:

    WECHAT_API_URL=http://127.0.0.1:8090 WECHAT_APPID=wx1 WECHAT_SECRET=0123456789abcdef0123456789abcdef wxkeeper run
`
}

func (v *simulateVerb) Run(ctx context.Context, t *terminal) error {
	cfg, err := v.config()
	if err != nil {
		return usage(err)
	}
	if v.Control != config.None && !v.InsecureControl && !loopback.Addr(v.Control) {
		return usage(fmt.Errorf("--control: %s can be reached from other machines: listen on 127.0.0.1, or add "+
			"--insecure-control", v.Control))
	}
	sim := wechattest.New(cfg)
	defer sim.Release()
	failed := make(chan error, 2) // one for each server, so that no server blocks
	api, closeAPI, err := serveSimulation("--listen", v.Listen, failed, func(net.Listener) *http.Server {
		srv := listen.NewServer(sim, slog.New(slog.DiscardHandler))
		srv.WriteTimeout = 0 // a fault can make a call hang until its client gives up
		return srv
	})
	if err != nil {
		return err
	}
	defer closeAPI()
	control := config.None
	if v.Control != config.None {
		url, closeControl, err := serveSimulation("--control", v.Control, failed, func(l net.Listener) *http.Server {
			return listen.NewServer(listen.Guard(sim.Control(), l, v.Control), slog.New(slog.DiscardHandler))
		})
		if err != nil {
			return err
		}
		defer closeControl()
		control = url
	}
	safetext.Fprintf(t.out, "simulated WeChat ready: api=%s control=%s\n", api, control)
	select {
	case <-ctx.Done():
		sim.Release() // calls that hang would delay the stop
		return nil
	case err := <-failed:
		return err
	}
}

func (v *simulateVerb) config() (wechattest.Config, error) {
	cfg := wechattest.Config{
		TokenLife: v.TokenLife, TicketLife: v.TicketLife, ForceGap: orNone(v.ForceGap),
		ForcesPerDay: v.ForcesPerDay, TokensPerDay: v.TokensPerDay, TicketsPerDay: v.TicketsPerDay,
		StablePerMinute: v.StablePerMinute, StablePerDay: v.StablePerDay,
		CodesPerDay: v.CodesPerDay, CodesPerMinute: v.CodesPerMinute,
		AllowIPs: v.AllowIP, Latency: v.Latency, AnyCode: v.AnyCode,
	}
	if v.Overlap != nil {
		cfg.Overlap = orNone(*v.Overlap)
	}
	for _, f := range []struct {
		flag string
		zero bool
	}{
		{"--token-life", v.TokenLife == 0}, {"--ticket-life", v.TicketLife == 0},
		{"--forces-per-day", v.ForcesPerDay == 0}, {"--tokens-per-day", v.TokensPerDay == 0},
		{"--stable-per-minute", v.StablePerMinute == 0}, {"--stable-per-day", v.StablePerDay == 0},
		{"--tickets-per-day", v.TicketsPerDay == 0},
		{"--codes-per-day", v.CodesPerDay == 0}, {"--codes-per-minute", v.CodesPerMinute == 0},
	} {
		if f.zero { // in a wechattest.Config, 0 means WeChat's own number
			return cfg, fmt.Errorf("%s: it cannot be 0", f.flag)
		}
	}
	for _, a := range v.Account {
		appid, secret, ok := strings.Cut(a, ":")
		if !ok {
			return cfg, errors.New("--account: a value is not APPID:SECRET") // not shown: it may be an AppSecret
		}
		cfg.Accounts = append(cfg.Accounts, wechattest.Account{AppID: appid, Secret: secret})
	}
	if len(cfg.Accounts) == 0 && v.Control == config.None {
		return cfg, errors.New("--account: without an account, and without --control to add one, the simulation " +
			"would refuse every call")
	}
	if err := cfg.Validate(); err != nil {
		return cfg, errors.New(flagNames.Replace(err.Error()))
	}
	return cfg, nil
}

// orNone turns 0 into the value that means none in a wechattest.Config.
func orNone(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// flagNames replaces the names of wechattest's fields by the names of the flags.
var flagNames = strings.NewReplacer("Accounts[", "--account [", "TokenLife", "--token-life",
	"TicketLife", "--ticket-life", "Overlap", "--overlap", "Latency", "--latency", "AllowIPs", "--allow-ip")

// serveSimulation serves on addr, with the server that server returns, until shutdown is called. It returns the URL. If
// serving fails before, it sends the error to failed.
func serveSimulation(flag, addr string, failed chan<- error, server func(net.Listener) *http.Server) (url string,
	shutdown func(), err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", flag, err)
	}
	shutdown = listen.Serve(server(l), l, func(err error) { failed <- fmt.Errorf("%s: %w", flag, err) })
	return "http://" + l.Addr().String(), shutdown, nil
}
