package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
)

// Config is the environment of a process, checked. Tags: env is the variable, envDefault its value where it is not set,
// help its meaning, min and max its bounds, secret that its value is never shown. Numbered has those of [entry], with
// WECHAT_ACCOUNTS_0_ before them, and so on.
type Config struct {
	AppID        string  `env:"WECHAT_APPID" help:"AppID of the one account of a small installation"`
	Secret       string  `env:"WECHAT_SECRET" secret:"true" help:"its AppSecret, or:"`
	SecretFile   string  `env:"WECHAT_SECRET_FILE" help:"file that holds its AppSecret"`
	Numbered     []entry `envPrefix:"WECHAT_ACCOUNTS_"`
	AccountsFile string  `env:"WECHAT_ACCOUNTS_FILE" help:"JSON file of many accounts: [{\"appid\", \"secret\" or \"secret_file\", \"name\", \"token_api\", \"tickets\"}]; read again on SIGHUP, on change, and when WeChat refuses an account"`

	APIURLs     []string      `env:"WECHAT_API_URL" envDefault:"https://api.weixin.qq.com" help:"WeChat server API; a comma-separated list: the next host serves when one fails"`
	APIInsecure bool          `env:"WECHAT_API_INSECURE" envDefault:"false" help:"allow http:// beyond loopback in WECHAT_API_URL: secrets and tokens then cross the network in the clear"`
	TokenAPI    string        `env:"WECHAT_TOKEN_API" envDefault:"stable_token" help:"stable_token (isolated from every other system of the account, safe to switch on beside one) or token (GET /cgi-bin/token)"`
	HTTPTimeout time.Duration `env:"WECHAT_HTTP_TIMEOUT" envDefault:"5s" min:"100ms" max:"10s" help:"one call of the WeChat server API"`
	Tickets     []string      `env:"WECHAT_TICKETS" envDefault:"jsapi,wx_card" help:"kinds of ticket to keep (jsapi, wx_card), or none"`

	NATSURL      string `env:"NATS_URL" help:"NATS server, or a comma-separated list; not set: the worker starts an embedded server"`
	NATSCreds    string `env:"NATS_CREDS" help:"credentials file for NATS_URL"`
	NATSNKey     string `env:"NATS_NKEY" help:"file with an nkey seed for NATS_URL"`
	NATSUser     string `env:"NATS_USER" help:"user for NATS_URL; without NATS_URL the embedded server demands it"`
	NATSPassword string `env:"NATS_PASSWORD" secret:"true" help:"password of NATS_USER"`
	NATSToken    string `env:"NATS_TOKEN" secret:"true" help:"token for NATS_URL; without NATS_URL the embedded server demands it"`
	NATSCA       string `env:"NATS_CA" help:"PEM file of the authorities that signed the certificate of NATS_URL"`
	NATSCert     string `env:"NATS_CERT" help:"PEM file of the client's certificate for NATS_URL"`
	NATSKey      string `env:"NATS_KEY" help:"PEM file of that certificate's key"`
	NATSInbox    string `env:"NATS_INBOX_PREFIX" help:"first tokens of the subjects on which this process gets its replies, where its NATS user has some of its own (wxkeeper permissions): for example _INBOX_worker; not set: _INBOX"`

	NATSListen string `env:"WXKEEPER_NATS_LISTEN" envDefault:"127.0.0.1:4222" help:"where the embedded server listens; beyond loopback only with NATS_USER and NATS_PASSWORD, or NATS_TOKEN"`
	DataDir    string `env:"WXKEEPER_DATA_DIR" envDefault:"data" help:"store of the embedded server; kept at mode 0700"`
	HTTPAddr   string `env:"WXKEEPER_HTTP_ADDR" envDefault:"127.0.0.1:8080" help:"where health, metrics and the status page are served, or none"`

	SubjectPrefix string `env:"WXKEEPER_SUBJECT_PREFIX" envDefault:"wechat" help:"first token of every subject"`
	Bucket        string `env:"WXKEEPER_BUCKET" envDefault:"wechat" help:"name of the credential bucket"`
	Replicas      int    `env:"WXKEEPER_REPLICAS" envDefault:"0" min:"0" max:"5" help:"replicas of the buckets; 0: 3 in a cluster of three or more, else 1"`

	RefreshBefore      time.Duration `env:"WXKEEPER_REFRESH_BEFORE" envDefault:"10m" min:"1s" max:"1h" help:"how long before its end a token of WECHAT_TOKEN_API=token is renewed, at most a third of its life; a token of stable_token is renewed in its last 5 minutes, tickets are looked at every 15 minutes"`
	ResolveConcurrency int           `env:"WXKEEPER_RESOLVE_CONCURRENCY" envDefault:"256" min:"1" max:"65536" help:"code resolutions in flight in one worker"`
	ResolveTimeout     time.Duration `env:"WXKEEPER_RESOLVE_TIMEOUT" envDefault:"4s" min:"100ms" max:"60s" help:"a reply is sent within this time, whatever WeChat does"`

	LogFormat string `env:"WXKEEPER_LOG_FORMAT" help:"text or json; not set: text on a terminal, else json"`
	LogLevel  string `env:"WXKEEPER_LOG_LEVEL" envDefault:"info" help:"debug, info, warn or error"`
}

// None is the value of WECHAT_TICKETS and WXKEEPER_HTTP_ADDR that switches them off. In a loaded Config they are empty then.
const None = "none"

// Load reads environ; nil means the environment of the process. It does not read the accounts: a process that only asks
// for credentials needs none. See [Config.Accounts].
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
	if err := checkNumbers(set); err != nil {
		return Config{}, err
	}
	c, err := env.ParseAsWithOptions[Config](env.Options{Environment: set})
	if err != nil {
		return Config{}, explain(err, set)
	}
	if err := c.validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// explain says in the operator's words what env says in the words of Go's types. Only durations, numbers and booleans can
// fail to parse, and none of them is a secret: their values may be shown.
func explain(err error, set map[string]string) error {
	var all env.AggregateError
	if !errors.As(err, &all) {
		return err
	}
	for _, e := range all.Errors {
		var pe env.ParseError
		if !errors.As(e, &pe) {
			continue
		}
		f, ok := reflect.TypeFor[Config]().FieldByName(pe.Name)
		if !ok {
			continue
		}
		name := f.Tag.Get("env")
		return fmt.Errorf("%s: %q is not %s", name, set[name], wanted(f))
	}
	return err
}

func wanted(f reflect.StructField) string {
	switch f.Type {
	case reflect.TypeFor[time.Duration]():
		return "a duration: write a number with its unit, for example " + f.Tag.Get("envDefault") + " or " + f.Tag.Get("min")
	case reflect.TypeFor[bool]():
		return "true or false"
	default:
		return "a whole number from " + f.Tag.Get("min") + " to " + f.Tag.Get("max")
	}
}

// trimAll trims the elements of a comma-separated list and drops the empty ones.
func trimAll(list []string) []string {
	var out []string
	for _, s := range list {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}
