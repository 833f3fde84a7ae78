package config_test

import (
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/config"
)

// Go ignores a proxy that it cannot parse: calls would leave by an address that is not on the white list.
func TestProxyThatCannotBeUsedStopsTheStart(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"http://u:" + canary + "@host:port":   "not the URL of a proxy",
		"http://u:" + canary + "/@[host":      "not the URL of a proxy",
		"http://u:" + canary + "%zz@h:1":      "special characters of a password",
		"u:" + canary + " @h:1:2":             "not the URL of a proxy",
		"http://ho st:3128":                   "not the URL of a proxy",
		"http://ho\nst:3128":                  "not the URL of a proxy",
		"http:/10.0.0.1:3128":                 "no path",
		"http//10.0.0.1:3128":                 "no path",
		"htp://" + canary + "@10.0.0.1:3128":  "http, https, socks5 or socks5h",
		"ftp://10.0.0.1:21":                   "http, https, socks5 or socks5h",
		"http://:3128":                        "names no host",
		"http://":                             "names no host",
		"http://u:" + canary + "@":            "names no host",
		"http://proxy;proxy2:3128":            "names no host",
		"http://10.0.0.1:0":                   "1 to 65535",
		"http://10.0.0.1:65536":               "1 to 65535",
		"http://10.0.0.1:":                    "1 to 65535",
		"http://wpad.example/proxy.pac":       "PAC",
		"http://10.0.0.1:3128/?key=" + canary: "no path, query or fragment",
		"http://10.0.0.1:3128#" + canary:      "no path, query or fragment",
		"http://a:3128,http://b:3128":         "not the URL of a proxy",
		"DIRECT " + canary:                    "not the URL of a proxy",
	} {
		for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY"} {
			for _, spelled := range []string{name, strings.ToLower(name)} {
				_, err := config.Load(vars{spelled: value})
				if err == nil {
					t.Errorf("%s=%s is accepted", spelled, value)
					continue
				}
				wants(t, err, name, want, "http://10.0.0.1:3128")
			}
		}
	}
	for _, value := range []string{
		"10.0.0.1:3128", "proxy", "proxy.example:3128", "http://[::1]:3128", "u:p@proxy:3128", "https://u:p%40@proxy/",
		"socks5://proxy:1080", "socks5h://proxy", " http://proxy:3128\n", "http://代理.example:3128",
	} {
		if _, err := config.Load(vars{"HTTPS_PROXY": value}); err != nil {
			t.Errorf("%q: %v", value, err)
		}
	}
}

func TestListOfExceptionsThatCannotBeUsedStopsTheStart(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"a.example;b.example": `"a.example;b.example"`, "a.example b.example": "commas",
		"localhost,10.0.0.0/33": `"10.0.0.0/33"`, "http://a.example": `"http://a.example"`, "a.example:port": `"a.example:port"`,
		"<local>": `"<local>"`, "*.*.example": `"*.*.example"`, "u:" + canary + "@h": "not a list of hosts",
	} {
		for _, spelled := range []string{"NO_PROXY", "no_proxy"} {
			_, err := config.Load(vars{spelled: value})
			wants(t, err, "NO_PROXY", want)
		}
	}
	for _, value := range []string{
		"*", "", ",", "localhost, 127.0.0.1 ,::1,[::1]:8080,10.0.0.0/8,fd00::/8",
		".example.com,*.example.com,a_b.example:8080",
		"中国.example",
	} {
		if _, err := config.Load(vars{"NO_PROXY": value}); err != nil {
			t.Errorf("%q: %v", value, err)
		}
	}
}

func TestProxiesThatDifferBySpellingStopTheStart(t *testing.T) {
	t.Parallel()
	_, err := config.Load(vars{"HTTPS_PROXY": "http://u:" + canary + "@a:1", "https_proxy": "http://b:1"})
	wants(t, err, "HTTPS_PROXY, https_proxy", "differ", "set one of them")
	c, err := config.Load(vars{"HTTPS_PROXY": "http://a:1", "https_proxy": "http://a:1", "no_proxy": "b.example"})
	if err != nil || c.HTTPSProxy != "http://a:1" || c.NoProxy != "b.example" {
		t.Errorf("%v, %v", c, err)
	}
}

func TestRoutesOfCallsFollowTheVariables(t *testing.T) {
	t.Parallel()
	const urls = "https://a.example,http://b.example,https://c.example:8443/relay"
	proxied := vars{
		"WECHAT_API_URL": urls, "WECHAT_API_INSECURE": "true", "https_proxy": "http://u:" + canary + "@p:3128",
		"NO_PROXY": "a.example",
	}
	c, err := config.Load(proxied)
	if err != nil {
		t.Fatal(err)
	}
	want := []config.Route{
		{Host: "a.example", Variable: "HTTPS_PROXY", Excepted: true},
		{Host: "b.example", Variable: "HTTP_PROXY"},
		{Host: "c.example:8443", Variable: "HTTPS_PROXY", Proxy: "http://***@p:3128"},
	}
	if d := cmp.Diff(want, c.Routes()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	// The client of WeChat goes the same ways, with the password.
	for host, want := range map[string]string{
		"https://a.example": "", "http://b.example": "", "https://c.example:8443": "http://u:" + canary + "@p:3128",
	} {
		u, err := url.Parse(host)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if p, err := c.WeChat().Proxy(u); err != nil {
			t.Error(err)
		} else if p != nil {
			got = p.String()
		}
		if got != want {
			t.Errorf("calls of %s go to %q, want %q", host, got, want)
		}
	}
	for _, text := range []string{c.String(), c.GoString()} {
		if strings.Contains(text, canary) || !strings.Contains(text, "http://***@p:3128") {
			t.Errorf("the configuration shows itself as %s", text)
		}
	}
	direct, err := config.Load(vars{})
	if err != nil || direct.Routes() != nil || direct.WeChat().Proxy != nil {
		t.Errorf("without a proxy: %v, %v", direct.Routes(), err)
	}
}

func TestCertificatesThatCannotBeReadStopTheStart(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		t.Skip("Go does not read these variables here")
	}
	dir := write(t, map[string]string{"no.pem": canary, "ca.pem": certificate,
		"marked.pem": certificate + "\ufeff" + certificate,
		"wide.pem":   "\xff\xfe" + strings.Join(strings.Split(certificate, ""), "\x00") + "\x00"})
	empty := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, tt := range []struct {
		name, value string
		want        string // empty: accepted
	}{
		{"SSL_CERT_FILE", in("missing"), "no such file"}, {"SSL_CERT_FILE", dir, "is not a file"},
		{"SSL_CERT_FILE", in("no.pem"), "no certificate in PEM form"}, {"SSL_CERT_FILE", in("ca.pem"), ""},
		{"SSL_CERT_FILE", in("marked.pem"), "a byte order mark in front of a certificate"},
		{"SSL_CERT_FILE", in("wide.pem"), "this file is UTF-16: save it as UTF-8"},
		{"SSL_CERT_DIR", in("missing"), "no such file"}, {"SSL_CERT_DIR", empty, "no file with a certificate"},
		{"SSL_CERT_DIR", in("missing") + ":" + dir, ""}, {"SSL_CERT_DIR", dir, ""},
	} {
		switch _, err := config.Load(vars{tt.name: tt.value}); {
		case tt.want != "":
			wants(t, err, tt.name, tt.want)
		case err != nil:
			t.Error(err)
		}
	}
	if err := os.Mkdir(in("sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := config.Load(vars{"SSL_CERT_DIR": in("sub") + ":" + empty})
	wants(t, err, "SSL_CERT_DIR", "no file with a certificate")
}

// certificate is of an authority whose key is lost.
const certificate = `-----BEGIN CERTIFICATE-----
MIIBdDCCARugAwIBAgIUIDBGuVC80tNQJre4BcVKhcg/oiUwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjgwNzExMDVaGA8yMTI2MTEwNDA3MTEw
NVowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABGGE
Xws0VXXIujyJ72p4MmJdndJKe3g8miw88NlRI5uFx7H4WTWdT95EIAXbhiwrD/K7
+PZrHlknJTq0fHohcU6jUzBRMB0GA1UdDgQWBBT5xYjiN53tM+m0EEO4OiALr08X
SDAfBgNVHSMEGDAWgBT5xYjiN53tM+m0EEO4OiALr08XSDAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0cAMEQCICg94MyI6WzPfkXqTGEEY/KLny9ZhyY57GrO
QD7YfvU5AiA9NrlDWKkO5li7HufBPCHPE58bNgg963+E1xCHMNB1XQ==
-----END CERTIFICATE-----`
