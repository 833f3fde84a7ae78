package config

import (
	"fmt"
	"net"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/setting"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// validate checks what the types do not check, and normalizes lists and URLs. It returns only the first
// error: a start that fails prints one line.
func (c *Config) validate() error {
	for _, check := range []func() error{
		c.checkBounds, c.checkUpstream, c.checkNetwork, c.checkNATS, c.checkNames, c.checkBuckets,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// checkBounds checks every field that has the tags min and max.
func (c *Config) checkBounds() error {
	for _, v := range c.variables() {
		lo, hi := v.Tag.Get("min"), v.Tag.Get("max")
		if lo == "" {
			continue
		}
		if n := v.value.Int(); n < v.bound(lo) || n > v.bound(hi) {
			return setting.Errorf(v.name, "%v is out of range: it must be from %s to %s", v.value, lo, hi)
		}
	}
	return nil
}

// bound parses a min or max tag. It panics if the tag is wrong. Tests load a Config, which parses all of them.
func (v variable) bound(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if v.Type == reflect.TypeFor[time.Duration]() {
		var d time.Duration
		d, err = time.ParseDuration(s)
		n = int64(d)
	}
	if err != nil {
		panic(v.name + ": " + err.Error())
	}
	return n
}

func (c *Config) checkUpstream() error {
	c.APIURLs = trimAll(c.APIURLs)
	if len(c.APIURLs) == 0 {
		return setting.Errorf("WECHAT_API_URL", "the list has no URL, for example %s", wechat.DefaultURL)
	}
	for i, s := range c.APIURLs {
		u, err := wechat.CheckURL(s, c.APIInsecure)
		if err != nil {
			return setting.Errorf("WECHAT_API_URL", "URL %d %w", i+1, err)
		}
		c.APIURLs[i] = u.String()
	}
	if err := checkTokenAPI(c.TokenAPI); err != nil {
		return setting.Errorf("WECHAT_TOKEN_API", "%w", err)
	}
	if _, err := ticketKinds(c.Tickets); err != nil {
		return setting.Errorf("WECHAT_TICKETS", "%w", err)
	}
	return nil
}

// named is the value of a variable.
type named struct{ name, value string }

func (c *Config) checkNATS() error {
	if err := natsconn.CheckURLs(c.NATSURL); err != nil {
		return err
	}
	if c.NATSURL == "" {
		for _, v := range []named{
			{"NATS_CREDS", c.NATSCreds}, {"NATS_NKEY", c.NATSNKey}, {"NATS_CA", c.NATSCA}, {"NATS_CERT", c.NATSCert},
			{"NATS_KEY", c.NATSKey},
		} {
			if v.value != "" {
				return setting.Errorf(v.name,
					"the embedded NATS server does not use it: set NATS_URL too, or unset it "+
						"(the embedded server uses NATS_USER and NATS_PASSWORD, or NATS_TOKEN)")
			}
		}
		if c.NATSTLSFirst {
			return setting.Errorf("NATS_TLS_FIRST", "the embedded NATS server has no TLS: set NATS_URL too, or unset it")
		}
		if c.Replicas > 1 {
			return setting.Errorf("WXKEEPER_REPLICAS",
				"the embedded NATS server is one server and cannot keep %d replicas: "+
					"set NATS_URL to a JetStream cluster, or unset it", c.Replicas)
		}
	}
	if err := c.checkAuthentication(); err != nil {
		return err
	}
	switch {
	case c.NATSInbox != "" && !inbox.MatchString(c.NATSInbox):
		return setting.Errorf("NATS_INBOX_PREFIX",
			"%q is not the beginning of a subject: write letters, digits, _ and -, "+
				"with dots between tokens, for example _INBOX_worker", c.NATSInbox)
	case strings.HasPrefix(c.NATSInbox+".", c.SubjectPrefix+"."): // workers send no reply to such an inbox
		return setting.Errorf("NATS_INBOX_PREFIX",
			"%q is within WXKEEPER_SUBJECT_PREFIX: write for example _INBOX_worker", c.NATSInbox)
	}
	if err := checkHostPort(c.NATSListen); err != nil {
		return setting.Errorf("WXKEEPER_NATS_LISTEN", "%w, for example 127.0.0.1:4222", err)
	}
	return nil
}

func (c *Config) checkAuthentication() (err error) {
	if c.NATSPassword, err = checkPassword(c.NATSPassword); err != nil {
		return setting.Errorf("NATS_PASSWORD", "the value %w", err)
	}
	if c.NATSToken, err = checkPassword(c.NATSToken); err != nil {
		return setting.Errorf("NATS_TOKEN", "the value %w", err)
	}
	c.NATSUser = strings.TrimRight(c.NATSUser, atEnd)
	switch {
	case c.NATSUser != "" && c.NATSPassword == "":
		return setting.Errorf("NATS_USER",
			"NATS_PASSWORD is not set: a user needs a password (a token goes into NATS_TOKEN)")
	case c.NATSUser == "" && c.NATSPassword != "":
		return setting.Errorf("NATS_PASSWORD",
			"NATS_USER is not set: a password needs a user (a token goes into NATS_TOKEN)")
	case c.NATSCert != "" && c.NATSKey == "":
		return setting.Errorf("NATS_CERT", "NATS_KEY is not set: a client certificate needs both")
	case c.NATSCert == "" && c.NATSKey != "":
		return setting.Errorf("NATS_KEY", "NATS_CERT is not set: a client certificate needs both")
	}
	var ways []string
	for _, v := range []named{
		{"NATS_CREDS", c.NATSCreds}, {"NATS_NKEY", c.NATSNKey}, {"NATS_USER", c.NATSUser},
		{"NATS_TOKEN", c.NATSToken.Reveal()},
	} {
		if v.value != "" {
			ways = append(ways, v.name)
		}
	}
	if len(ways) > 1 {
		return setting.Errorf(strings.Join(ways, ", "), "these are different ways to authenticate: set one of them")
	}
	return nil
}

func checkHostPort(s string) error {
	_, p, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not host:port", s)
	}
	if _, err := strconv.ParseUint(p, 10, 16); err != nil {
		return fmt.Errorf("%q has no port from 0 to 65535", s)
	}
	return nil
}

// inbox matches one or more tokens of a NATS subject.
var inbox = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// token matches one token of a NATS subject that can also be the name of a bucket and of a micro service.
var token = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (c *Config) checkNames() error {
	for _, v := range []named{{"WXKEEPER_SUBJECT_PREFIX", c.SubjectPrefix}, {"WXKEEPER_BUCKET", c.Bucket}} {
		if !token.MatchString(v.value) {
			return setting.Errorf(v.name, "%q is not one token of 1 to 64 letters, digits, _ and -", v.value)
		}
	}
	// Subjects that begin with _ or $ are those of inboxes and of NATS itself.
	if strings.HasPrefix(c.SubjectPrefix, "_") {
		return setting.Errorf("WXKEEPER_SUBJECT_PREFIX", "%q begins with _, as the subjects of replies do: begin with a "+
			"letter or a digit", c.SubjectPrefix)
	}
	if c.HTTPAddr == None {
		c.HTTPAddr = ""
	} else if err := checkHostPort(c.HTTPAddr); err != nil {
		return setting.Errorf("WXKEEPER_HTTP_ADDR", "%w, for example 127.0.0.1:8080, and not none", err)
	}
	return nil
}
