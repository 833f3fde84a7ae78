package wechat

import (
	"strings"
	"testing"
	"time"
)

func TestZeroConfigWorks(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{})
	equal(t, "number of hosts", len(c.bases), 1)
	equal(t, "base URL", c.bases[0].String(), DefaultURL)
	equal(t, "timeout", c.timeout, 5*time.Second)
	if c.transport == nil {
		t.Error("no transport")
	}
}

func TestURLsAreChecked(t *testing.T) {
	t.Parallel()
	const hidden = "HIDDEN"
	tests := map[string]struct {
		url      string
		insecure bool
		want     string // part of the error; empty: accepted
	}{
		"https":              {url: "https://api2.weixin.qq.com"},
		"https with a path":  {url: "https://relay.example/wechat/"},
		"http on loopback":   {url: "http://127.0.0.1:8080"},
		"http on loopback 6": {url: "http://[::1]:8080"},
		"http on localhost":  {url: "http://LocalHost:8080"},
		"http allowed":       {url: "http://relay.example", insecure: true},
		"http":               {url: "http://relay.example", want: "http://relay.example, which would send secrets"},
		"http on a name":     {url: "http://localhost.example", want: "write https://"},
		"empty":              {url: "", want: "for example https://api.weixin.qq.com"},
		"no scheme":          {url: "api.weixin.qq.com", want: "not an http or https URL"},
		"ftp":                {url: "ftp://api.weixin.qq.com", insecure: true, want: "not an http or https URL"},
		"no host":            {url: "https://:443/x", want: "not an http or https URL"},
		"userinfo":           {url: "https://u:" + hidden + "@relay.example", want: "leave https://relay.example"},
		"query":              {url: "https://relay.example?key=" + hidden, want: "leave https://relay.example"},
		"empty query":        {url: "https://relay.example?", want: "leave https://relay.example"},
		"fragment":           {url: "https://relay.example#" + hidden, want: "leave https://relay.example"},
		"empty fragment":     {url: "https://relay.example#", want: "leave https://relay.example"},
		"not a URL":          {url: "https://u:" + hidden + "@relay.example:port", want: "cannot be parsed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := New(Config{URLs: []string{DefaultURL, tt.url}, AllowInsecure: tt.insecure})
			if tt.want == "" {
				if err != nil {
					t.Errorf("got %v, want no error", err)
				}
				return
			}
			if err == nil {
				t.Fatalf("got no error, want %q", tt.want)
			}
			contains(t, "error", err.Error(), "Config.URLs[1] ")
			contains(t, "error", err.Error(), tt.want)
			if strings.Contains(err.Error(), hidden) {
				t.Errorf("the error shows a password or query: %v", err)
			}
		})
	}
}

func TestNegativeTimeoutIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{Timeout: -1}); err == nil || !strings.Contains(err.Error(), "Config.Timeout") {
		t.Errorf("got %v", err)
	}
}
