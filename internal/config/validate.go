package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natsconn"
)

// validate checks what the types do not, and brings lists to their simplest form. It returns the first fault: the start
// is stopped with one line.
func (c *Config) validate() error {
	for _, check := range []func() error{c.bounds, c.upstream, c.nats, c.names} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// bounds checks every field that has the tags min and max.
func (c *Config) bounds() error {
	v := reflect.ValueOf(*c)
	for _, f := range reflect.VisibleFields(v.Type()) {
		lo, hi := f.Tag.Get("min"), f.Tag.Get("max")
		if lo == "" {
			continue
		}
		n := v.FieldByIndex(f.Index).Int()
		if n < bound(f, lo) || n > bound(f, hi) {
			return fmt.Errorf("%s: %v is out of range: it must be from %s to %s", f.Tag.Get("env"), v.FieldByIndex(f.Index), lo, hi)
		}
	}
	return nil
}

// bound parses a min or max tag. A test walks all of them, so that no wrong one reaches an operator.
func bound(f reflect.StructField, s string) int64 {
	if f.Type == reflect.TypeFor[time.Duration]() {
		d, err := time.ParseDuration(s)
		if err != nil {
			panic(f.Name + ": " + err.Error())
		}
		return int64(d)
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(f.Name + ": " + err.Error())
	}
	return n
}

func (c *Config) upstream() error {
	c.APIURLs = trimAll(c.APIURLs)
	if len(c.APIURLs) == 0 {
		return errors.New("WECHAT_API_URL: the list has no URL, for example https://api.weixin.qq.com")
	}
	for i, s := range c.APIURLs {
		u, err := c.apiURL(s)
		if err != nil {
			return fmt.Errorf("WECHAT_API_URL: URL %d %w", i+1, err)
		}
		c.APIURLs[i] = u
	}
	if err := checkTokenAPI(c.TokenAPI); err != nil {
		return fmt.Errorf("WECHAT_TOKEN_API: %w", err)
	}
	var err error
	if c.Tickets, err = tickets(c.Tickets); err != nil {
		return fmt.Errorf("WECHAT_TICKETS: %w", err)
	}
	return nil
}

// apiURL returns s without a slash at its end. Errors show scheme and host alone: a URL can hold a password, and a
// query was perhaps copied with a secret in it.
func (c *Config) apiURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", errors.New("cannot be parsed: write for example https://api.weixin.qq.com")
	}
	shown := u.Scheme + "://" + u.Host
	switch {
	case u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "":
		return "", errors.New("is not an http or https URL, for example https://api.weixin.qq.com")
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return "", fmt.Errorf("has more than a host and a path: leave %s", shown)
	case u.Scheme == "http" && !loopback(u.Hostname()) && !c.APIInsecure:
		return "", fmt.Errorf("is %s, which would send secrets over the network in the clear: write https://, or set WECHAT_API_INSECURE=true", shown)
	}
	return strings.TrimRight(s, "/"), nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func checkTokenAPI(s string) error {
	if s != "stable_token" && s != "token" {
		return fmt.Errorf("%q is not one of stable_token, token", s)
	}
	return nil
}

// tickets returns the kinds of a list without repetition, and nothing for none.
func tickets(list []string) ([]string, error) {
	var out []string
	list = trimAll(list)
	for _, s := range list {
		switch {
		case s == None && len(list) > 1:
			return nil, errors.New("none stands beside a kind of ticket: it must stand alone")
		case s == None:
		case s != "jsapi" && s != "wx_card":
			return nil, fmt.Errorf("%q is not a kind of ticket: write jsapi, wx_card, both with a comma, or none", s)
		case !slices.Contains(out, s):
			out = append(out, s)
		}
	}
	return out, nil
}

func (c *Config) nats() error {
	if err := natsconn.CheckURLs(c.NATSURL); err != nil {
		return err
	}
	if c.NATSURL == "" {
		for _, v := range []struct{ name, value string }{
			{"NATS_CREDS", c.NATSCreds}, {"NATS_NKEY", c.NATSNKey}, {"NATS_CA", c.NATSCA}, {"NATS_CERT", c.NATSCert}, {"NATS_KEY", c.NATSKey},
		} {
			if v.value != "" {
				return fmt.Errorf("%s: the embedded NATS server does not know it: set NATS_URL too, or unset it (the embedded server takes NATS_USER and NATS_PASSWORD, or NATS_TOKEN)", v.name)
			}
		}
		if c.Replicas > 1 {
			return fmt.Errorf("WXKEEPER_REPLICAS: the embedded NATS server is one server and cannot keep %d replicas: set NATS_URL to a JetStream cluster, or unset it", c.Replicas)
		}
	}
	switch {
	case c.NATSUser != "" && c.NATSPassword == "":
		return errors.New("NATS_USER: NATS_PASSWORD is not set: a user needs a password (a token goes into NATS_TOKEN)")
	case c.NATSUser == "" && c.NATSPassword != "":
		return errors.New("NATS_PASSWORD: NATS_USER is not set: a password needs a user (a token goes into NATS_TOKEN)")
	case c.NATSCert != "" && c.NATSKey == "":
		return errors.New("NATS_CERT: NATS_KEY is not set: a client certificate needs both")
	case c.NATSCert == "" && c.NATSKey != "":
		return errors.New("NATS_KEY: NATS_CERT is not set: a client certificate needs both")
	}
	var ways []string
	for _, v := range []struct{ name, value string }{
		{"NATS_CREDS", c.NATSCreds}, {"NATS_NKEY", c.NATSNKey}, {"NATS_USER", c.NATSUser}, {"NATS_TOKEN", c.NATSToken},
	} {
		if v.value != "" {
			ways = append(ways, v.name)
		}
	}
	if len(ways) > 1 {
		return fmt.Errorf("%s: these are different ways to authenticate: set one of them", strings.Join(ways, ", "))
	}
	switch {
	case c.NATSInbox != "" && !inbox.MatchString(c.NATSInbox):
		return fmt.Errorf("NATS_INBOX_PREFIX: %q is not the beginning of a subject: write letters, digits, _ and -, with dots between tokens, for example _INBOX_worker", c.NATSInbox)
	case strings.HasPrefix(c.NATSInbox+".", c.SubjectPrefix+"."): // workers send no reply there
		return fmt.Errorf("NATS_INBOX_PREFIX: %q lies in WXKEEPER_SUBJECT_PREFIX: write for example _INBOX_worker", c.NATSInbox)
	}
	if err := hostPort(c.NATSListen); err != nil {
		return fmt.Errorf("WXKEEPER_NATS_LISTEN: %w, for example 127.0.0.1:4222", err)
	}
	return nil
}

func hostPort(s string) error {
	_, p, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not host:port", s)
	}
	if _, err := strconv.ParseUint(p, 10, 16); err != nil {
		return fmt.Errorf("%q has no port from 0 to 65535", s)
	}
	return nil
}

// inbox is one or some tokens of a NATS subject.
var inbox = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// token is one token of a NATS subject that is also the name of a bucket and of a micro service.
var token = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (c *Config) names() error {
	for _, v := range []struct{ name, value string }{
		{"WXKEEPER_SUBJECT_PREFIX", c.SubjectPrefix}, {"WXKEEPER_BUCKET", c.Bucket},
	} {
		if !token.MatchString(v.value) {
			return fmt.Errorf("%s: %q is not one token of 1 to 64 letters, digits, _ and -", v.name, v.value)
		}
	}
	if c.HTTPAddr == None {
		c.HTTPAddr = ""
	} else if err := hostPort(c.HTTPAddr); err != nil {
		return fmt.Errorf("WXKEEPER_HTTP_ADDR: %w, for example 127.0.0.1:8080, and not none", err)
	}
	return nil
}
