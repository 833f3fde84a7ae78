package config

import (
	"cmp"
	"errors"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/wxkeeper/wxkeeper/internal/logging"
	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/internal/setting"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// Config is the environment of a process, checked. The tags of a field: env is the variable, help its
// meaning, min and max its bounds; userinfo marks a URL that may contain a password. Numbered has the variables of
// [entry], with the prefixes WECHAT_ACCOUNTS_0_, WECHAT_ACCOUNTS_1_ and so on.
type Config struct {
	AppID        string        `env:"WECHAT_APPID" help:"AppID of the account, if there is only one"`
	Secret       redact.Secret `env:"WECHAT_SECRET" help:"its AppSecret, or:"`
	SecretFile   string        `env:"WECHAT_SECRET_FILE" help:"file that holds its AppSecret"`
	Numbered     []entry       `envPrefix:"WECHAT_ACCOUNTS_"`
	AccountsFile string        `env:"WECHAT_ACCOUNTS_FILE" help:"JSON file of many accounts: [{\"appid\", \"secret\" or \"secret_file\", \"name\", \"token_api\", \"tickets\"}]; read again on SIGHUP, after a change, and when WeChat refuses an account"`

	APIURLs     []string      `env:"WECHAT_API_URL" help:"WeChat server API; a comma-separated list: the next host serves when one fails"`
	APIInsecure bool          `env:"WECHAT_API_INSECURE" help:"allow http:// beyond loopback in WECHAT_API_URL: secrets and tokens then cross the network in the clear"`
	TokenAPI    string        `env:"WECHAT_TOKEN_API" help:"stable_token (does not affect other systems that use the account) or token (GET /cgi-bin/token)"`
	HTTPTimeout time.Duration `env:"WECHAT_HTTP_TIMEOUT" min:"100ms" max:"10s" help:"time limit of one call of the WeChat server API"`
	Tickets     []string      `env:"WECHAT_TICKETS" help:"kinds of ticket to keep (jsapi, wx_card), or none"`

	HTTPSProxy string `env:"HTTPS_PROXY" userinfo:"true" help:"proxy for calls of https:// in WECHAT_API_URL: [http|https|socks5|socks5h]://[user:password@]host:port; also https_proxy"`
	HTTPProxy  string `env:"HTTP_PROXY" userinfo:"true" help:"proxy for calls of http:// in WECHAT_API_URL; also http_proxy"`
	NoProxy    string `env:"NO_PROXY" help:"hosts that are called without a proxy: a comma-separated list of hosts, domains, IPs and networks, or *; also no_proxy"`
	CertFile   string `env:"SSL_CERT_FILE" help:"PEM file of the authorities that sign certificates, in place of the system's; for WeChat, and for NATS without NATS_CA; not read on macOS and Windows"`
	CertDir    string `env:"SSL_CERT_DIR" help:"directories of such files, in place of the system's, with colons between them"`

	NATSURL      string        `env:"NATS_URL" userinfo:"true" help:"NATS server, or a comma-separated list; not set: the worker starts an embedded server, and the other verbs find it"`
	NATSCreds    string        `env:"NATS_CREDS" help:"credentials file for NATS_URL"`
	NATSNKey     string        `env:"NATS_NKEY" help:"file with an nkey seed for NATS_URL"`
	NATSUser     string        `env:"NATS_USER" help:"user for NATS_URL; without NATS_URL: the user that the embedded server demands of consumers, in place of its generated token"`
	NATSPassword redact.Secret `env:"NATS_PASSWORD" help:"password of NATS_USER"`
	NATSToken    redact.Secret `env:"NATS_TOKEN" help:"token for NATS_URL; without NATS_URL: the token that the embedded server demands of consumers, in place of its generated token"`
	NATSCA       string        `env:"NATS_CA" help:"PEM file of the authorities that signed the certificate of NATS_URL"`
	NATSCert     string        `env:"NATS_CERT" help:"PEM file of the client's certificate for NATS_URL"`
	NATSKey      string        `env:"NATS_KEY" help:"PEM file of that certificate's key"`
	NATSTLSFirst bool          `env:"NATS_TLS_FIRST" help:"the server of NATS_URL has handshake_first: it begins with TLS, before it sends anything"`
	NATSInbox    string        `env:"NATS_INBOX_PREFIX" help:"first tokens of the subjects on which this process receives replies, as in the output of wxkeeper permissions, for example _INBOX_worker; not set: _INBOX"`

	NATSListen string `env:"WXKEEPER_NATS_LISTEN" help:"address on which the embedded server listens"`
	NATSOpen   bool   `env:"WXKEEPER_NATS_OPEN" help:"the embedded server demands no token of consumers; only on the loopback"`
	DataDir    string `env:"WXKEEPER_DATA_DIR" help:"directory for the store and the tokens of the embedded server; it must belong to this user and gets mode 0700"`
	Dumpable   bool   `env:"WXKEEPER_DUMPABLE" help:"on Linux, allow debuggers, core dumps and /proc access by other processes of the same user to a worker"`
	HTTPAddr   string `env:"WXKEEPER_HTTP_ADDR" help:"address of the pages for health, metrics and status, or none"`

	SubjectPrefix string `env:"WXKEEPER_SUBJECT_PREFIX" help:"first token of every subject"`
	Bucket        string `env:"WXKEEPER_BUCKET" help:"name of the credential bucket"`
	Replicas      int    `env:"WXKEEPER_REPLICAS" min:"0" max:"5" help:"replicas of the buckets; 0: 3 in a cluster (1 if it has too few servers for half a minute), else 1"`

	JSDomain      string   `env:"WXKEEPER_JS_DOMAIN" help:"JetStream domain of the buckets, if it differs from the domain of the server in NATS_URL"`
	MaxBytes      size     `env:"WXKEEPER_BUCKET_MAX_BYTES" help:"largest size with which each of the two buckets is created, for example 64MB; 0: no limit"`
	Storage       string   `env:"WXKEEPER_BUCKET_STORAGE" help:"file, or memory: buckets in memory are lost when their NATS servers stop, and are filled again"`
	PlacementTags []string `env:"WXKEEPER_BUCKET_PLACEMENT_TAGS" help:"tags that the servers of a NATS cluster must have to store the buckets; a comma-separated list"`

	RefreshBefore      time.Duration `env:"WXKEEPER_REFRESH_BEFORE" min:"1s" max:"1h" help:"how long before its expiry a token of WECHAT_TOKEN_API=token is refreshed, at most a third of its life; a token of stable_token is refreshed in its last 5 minutes, tickets are checked every 15 minutes"`
	ResolveConcurrency int           `env:"WXKEEPER_RESOLVE_CONCURRENCY" min:"1" max:"65536" help:"maximum number of code resolutions in flight in one worker"`
	ResolveTimeout     time.Duration `env:"WXKEEPER_RESOLVE_TIMEOUT" min:"100ms" max:"60s" help:"time limit for the reply to a code resolution"`

	LogFormat string `env:"WXKEEPER_LOG_FORMAT" help:"text or json; not set: text on a terminal, else json"`
	LogLevel  string `env:"WXKEEPER_LOG_LEVEL" help:"debug, info, warn or error"`
}

// Defaults returns the configuration of an empty environment. A default of a package below is that package's
// constant; the others are defined here.
func Defaults() Config {
	return Config{
		APIURLs:     []string{wechat.DefaultURL},
		TokenAPI:    worker.DefaultTokenAPI,
		HTTPTimeout: wechat.DefaultTimeout,
		Tickets:     []string{"jsapi", "wx_card"},

		NATSListen: "127.0.0.1:4222",
		DataDir:    "data",
		HTTPAddr:   "127.0.0.1:8080",

		SubjectPrefix: messages.DefaultPrefix,
		Bucket:        messages.DefaultBucket,
		Storage:       storageFile,

		RefreshBefore:      worker.DefaultRefreshBefore,
		ResolveConcurrency: worker.DefaultResolveConcurrency,
		ResolveTimeout:     worker.DefaultResolveTimeout,

		LogLevel: logging.DefaultLevel,
	}
}

// None switches off what WECHAT_TICKETS or WXKEEPER_HTTP_ADDR would switch on. In a loaded Config HTTPAddr is
// then empty.
const None = "none"

// Load reads environ; nil means the environment of the process. It does not read the accounts, because a process that
// only asks for credentials has none: see [Config.Accounts].
func Load(environ map[string]string) (Config, error) {
	if environ == nil {
		environ = env.ToMap(os.Environ())
	}
	set := make(map[string]string, len(environ))
	for k, v := range environ {
		if v != "" && !ofService.MatchString(k) {
			set[k] = v
		}
	}
	if err := cmp.Or(checkNumbers(set), tidy(set)); err != nil {
		return Config{}, err
	}
	if err := readLower(set); err != nil {
		return Config{}, err
	}
	c := Defaults()
	if err := env.ParseWithOptions(&c, env.Options{Environment: set}); err != nil {
		return Config{}, explain(err, set)
	}
	if err := c.validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// explain replaces an error of the env package, which speaks of Go types, by one for operators. Only
// durations, numbers and booleans can fail to parse. None of them is a secret, so the error shows their
// values.
func explain(err error, set map[string]string) error {
	defaults := Defaults()
	if pe, ok := errors.AsType[env.ParseError](err); ok {
		for _, v := range defaults.variables() {
			if v.Name == pe.Name {
				return setting.Errorf(v.name, "%q is not %s", set[v.name], v.wanted())
			}
		}
	}
	return err
}

// wanted describes the values that the variable can have.
func (v variable) wanted() string {
	switch v.Type {
	case reflect.TypeFor[time.Duration]():
		return "a duration: write a number with its unit, for example " + v.text() + " or " + v.Tag.Get("min")
	case reflect.TypeFor[bool]():
		return "true or false"
	case reflect.TypeFor[size]():
		return "a size: write bytes, or a number with KB, MB or GB, for example 64MB"
	default:
		return "a whole number from " + v.Tag.Get("min") + " to " + v.Tag.Get("max")
	}
}

// trimAll trims the elements of a comma-separated list and drops empty ones.
func trimAll(list []string) []string {
	var out []string
	for _, s := range list {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}
