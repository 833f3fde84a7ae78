package wechat

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// throughProxy returns a transport that uses the proxy at address, with a user and a password.
func throughProxy(address string, user *url.Userinfo) *http.Transport {
	t := newTransport(10 * time.Second)
	t.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: address, User: user})
	return t
}

// proxyUsers are credentials of a proxy. MARK is in each secret part; together even short parts are a secret.
var proxyUsers = map[string]*url.Userinfo{
	"user and password":         url.UserPassword("proxyMARKuser", "p4ssMARKword"),
	"password with punctuation": url.UserPassword("corp\\MARKuser", "p@ss:/MARK?&=%+ \"é\""),
	"token":                     url.User("tokenMARK0123456789"),
	"short":                     url.UserPassword("MARK", "1"),
}

// proxyEchoes returns the forms in which a proxy may quote a Proxy-Authorization.
func proxyEchoes(header string) []string {
	encoded := strings.TrimPrefix(header, "Basic ")
	pair, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return []string{header}
	}
	user, password, _ := strings.Cut(string(pair), ":")
	echoes := []string{
		header, string(pair), url.QueryEscape(string(pair)), encoded, strings.TrimRight(encoded, "="),
		base64.URLEncoding.EncodeToString(pair), url.QueryEscape(encoded),
		url.UserPassword(user, password).String(), fmt.Sprintf("%q", pair),
	}
	for _, part := range []string{user, password} {
		if len(part) >= shortestSecret {
			echoes = append(echoes, part, url.QueryEscape(part), url.PathEscape(part), fmt.Sprintf("%q", part))
		}
	}
	return slices.DeleteFunc(echoes, func(s string) bool { return strings.ContainsAny(s, "\r\n") })
}

// wordsOfProxy are the answers of hostile proxies, each with an echo of what they received.
var wordsOfProxy = map[string]func(echo string) string{
	"status line": func(echo string) string { return "HTTP/1.1 407 " + echo + "\r\nContent-Length: 0\r\n\r\n" },
	"status line and header": func(echo string) string {
		return "HTTP/1.1 407 " + echo + "\r\nProxy-Authenticate: Basic realm=\"" + echo + "\"\r\nContent-Length: 0\r\n\r\n"
	},
	"status 200": func(echo string) string { return "HTTP/1.1 200 " + echo + "\r\nX: " + echo + "\r\n\r\n" + echo },
	"status 502": func(echo string) string {
		return fmt.Sprintf("HTTP/1.1 502 %s\r\nContent-Length: %d\r\n\r\n%s", echo, len(echo), echo)
	},
	"redirect": func(echo string) string {
		return "HTTP/1.1 302 " + echo + "\r\nLocation: http://evil.example/?" + echo + "\r\nContent-Length: 0\r\n\r\n"
	},
	"body": func(echo string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n<html>%s", len(echo)+6, echo)
	},
	"errmsg": func(echo string) string {
		body := fmt.Sprintf(`{"errcode":40125,"errmsg":%q}`, echo)
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	},
	"no HTTP":          func(echo string) string { return echo + "\r\n\r\n" },
	"no status":        func(echo string) string { return "HTTP/1.1 " + echo + "\r\n\r\n" },
	"no version":       func(echo string) string { return "HTTP/" + echo + " 200 OK\r\n\r\n" },
	"malformed header": func(echo string) string { return "HTTP/1.1 407 no\r\n" + echo + "\r\n\r\n" },
	"malformed length": func(echo string) string { return "HTTP/1.1 407 no\r\nContent-Length: " + echo + "\r\n\r\n" },
	"transfer encoding": func(echo string) string {
		return "HTTP/1.1 407 no\r\nTransfer-Encoding: " + echo + "\r\n\r\n"
	},
	"cut off": func(echo string) string { return "HTTP/1.1 407 " + echo },
	"nothing": func(string) string { return "" },
}

func TestNoProxyPutsASecretIntoAnError(t *testing.T) {
	t.Parallel()
	for words, answer := range wordsOfProxy {
		for name, user := range proxyUsers {
			// With https:// the proxy opens a tunnel by CONNECT; with http:// it answers in the place of WeChat.
			for _, target := range []string{"https://api.weixin.qq.com", "http://api.weixin.qq.com"} {
				t.Run(words+"/"+name+"/"+target[:5], func(t *testing.T) {
					t.Parallel()
					for n, total := 0, 1; n < total; n++ {
						address := listen(t, func(conn net.Conn) {
							r, err := http.ReadRequest(bufio.NewReader(conn))
							if err != nil {
								return
							}
							echoes := proxyEchoes(r.Header.Get("Proxy-Authorization"))[:3]
							total = len(echoes)
							_, _ = io.WriteString(conn, answer(echoes[n]))
						})
						var attempts calls
						c := newClient(t, Config{
							URLs: []string{target}, AllowInsecure: true, OnCall: attempts.add,
							Transport: throughProxy(strings.TrimPrefix(address, "http://"), user),
						})
						_, err := c.StableToken(t.Context(), testAppID, testSecret, false)
						e := failure(t, err)
						assertSilent(t, chain(err)...)
						for _, call := range attempts.all {
							assertSilent(t, call, *call.Err)
						}
						password, _ := user.Password()
						encoded := base64.RawStdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
						for _, secret := range []string{testSecret, encoded[:8]} {
							if all := fmt.Sprintf("%v %+v", err, *e); strings.Contains(all, secret) {
								t.Errorf("%s shows: %s", secret, all)
							}
						}
						if target[:5] == "https" && e.Sent {
							t.Errorf("counts as sent: %v", err)
						}
						c.Close()
					}
				})
			}
		}
	}
}

func TestMaskFindsEverySpellingOfTheProxysPassword(t *testing.T) {
	t.Parallel()
	for name, user := range proxyUsers {
		c := newClient(t, Config{Transport: throughProxy("127.0.0.1:1", user)})
		password, _ := user.Password()
		header := "Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))
		for _, echo := range proxyEchoes(header) {
			for _, text := range []string{echo, "it says: " + echo + ", again: " + echo, "cut off " + echo[:len(echo)-1]} {
				if got := c.newMask(testSecret).line(text); strings.Contains(got, "MARK") || !strings.Contains(got, masked) {
					t.Errorf("%s: %q became %q", name, text, got)
				}
			}
		}
	}
}

// A proxy can also encode what it received in a form that nobody has thought of. So before there is a tunnel, none of
// its words are kept.
func TestNoWordOfAProxyIsKeptBeforeThereIsATunnel(t *testing.T) {
	t.Parallel()
	for words, answer := range wordsOfProxy {
		if words == "status 200" || words == "body" || words == "errmsg" {
			continue // a tunnel; what comes through it then is not TLS
		}
		address := listen(t, func(conn net.Conn) {
			if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				echo := hex.EncodeToString([]byte(r.Header.Get("Proxy-Authorization")))
				_, _ = io.WriteString(conn, answer("x"+echo))
			}
		})
		c := newClient(t, Config{
			Transport: throughProxy(strings.TrimPrefix(address, "http://"), proxyUsers["user and password"]),
		})
		_, err := c.StableToken(t.Context(), testAppID, testSecret, false)
		if text := failure(t, err).Error(); strings.Contains(text, hex.EncodeToString([]byte("MARK"))) {
			t.Errorf("%s: %s", words, text)
		}
	}
}

func TestRefusalOfAProxyIsDescribedInOurWords(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		"HTTP/1.1 407 Go away\r\n\r\n": "stable_token: no answer from api.weixin.qq.com: the proxy refused the connection " +
			"with HTTP 407 (Proxy Authentication Required)",
		"HTTP/1.1 599 Go away\r\n\r\n": "stable_token: no answer from api.weixin.qq.com: the proxy refused the connection " +
			"with HTTP 599",
		"Go away\r\n\r\n": "stable_token: no answer from api.weixin.qq.com: the proxy gave an answer that cannot be used",
	} {
		address := listen(t, func(conn net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.WriteString(conn, answer)
			}
		})
		c := newClient(t, Config{Transport: throughProxy(strings.TrimPrefix(address, "http://"), nil)})
		_, err := c.StableToken(t.Context(), testAppID, testSecret, false)
		equal(t, "the error", failure(t, err).Error(), want)
	}
	// A proxy that is away is an error of the network, which operators must see.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c := newClient(t, Config{Transport: throughProxy(l.Addr().String(), nil)})
	_, err = c.StableToken(t.Context(), testAppID, testSecret, false)
	contains(t, "the error", failure(t, err).Error(), "refused")
}

// net/http quotes a proxy URL that it cannot use, with the password.
func TestNoErrorQuotesTheVariableOfTheProxy(t *testing.T) {
	t.Parallel()
	for _, proxy := range []string{
		"http://user:paMARKss@host:port", "http://user:pa/MARK@[host", "user:pa MARK@host:1:2", "ftp://u:%zzMARK@h",
	} {
		quotes := func(*http.Request) (*url.URL, error) { return nil, fmt.Errorf("invalid proxy address %q", proxy) }
		for name, f := range map[string]func(*http.Request) (*url.URL, error){
			"as it is": quotes, "of the client's own transport": withoutVariable(quotes),
		} {
			transport := newTransport(time.Second)
			transport.Proxy = f
			c := newClient(t, Config{Transport: transport})
			_, err := c.StableToken(t.Context(), testAppID, testSecret, false)
			assertSilent(t, chain(failure(t, err))...)
			if name != "as it is" {
				contains(t, "the error", err.Error(), "HTTPS_PROXY")
			}
		}
	}
}

func TestProxyIsUsedWithItsPassword(t *testing.T) {
	t.Parallel()
	received := make(chan string, 1)
	address := listen(t, func(conn net.Conn) {
		if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			received <- r.Method + " " + r.Host + " " + r.Header.Get("Proxy-Authorization")
			_, _ = io.WriteString(conn, "HTTP/1.1 403 no\r\nContent-Length: 0\r\n\r\n")
		}
	})
	c := newClient(t, Config{
		Transport: throughProxy(strings.TrimPrefix(address, "http://"), url.UserPassword("user", "password")),
	})
	_, err := c.StableToken(t.Context(), testAppID, testSecret, false)
	contains(t, "the error", failure(t, err).Error(), "HTTP 403 (Forbidden)")
	equal(t, "the proxy received", <-received, "CONNECT api.weixin.qq.com:443 Basic dXNlcjpwYXNzd29yZA==")
}

// An error of the proxy's name or address says so, because operators would look at WeChat's otherwise.
func TestErrorSaysThatTheProxyIsTheCause(t *testing.T) {
	t.Parallel()
	lookup := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "proxy.example",
			IsNotFound: true}}
	}
	refused := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	for _, scheme := range []string{"http", "https", "socks5"} {
		for _, target := range []string{"https://api.weixin.qq.com", "http://api.weixin.qq.com"} {
			for text, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
				"lookup proxy.example: no such host": lookup, "connection refused": refused,
			} {
				transport := newTransport(time.Second)
				transport.Proxy = http.ProxyURL(&url.URL{Scheme: scheme, Host: "proxy.example:3128"})
				transport.DialContext = dial
				c := newClient(t, Config{URLs: []string{target}, AllowInsecure: true, Transport: transport})
				_, err := c.StableToken(t.Context(), testAppID, testSecret, false)
				e := failure(t, err)
				what := scheme + " to " + target + ": "
				contains(t, what+"error", err.Error(), "the proxy cannot be reached: ")
				contains(t, what+"error", err.Error(), text)
				contains(t, what+"advice", e.Advice, "HTTPS_PROXY")
				equal(t, what+"Sent", e.Sent, false)
				isError(t, err, ErrProxy)
				equal(t, what+"is about a name", errors.Is(err, ErrLookup), strings.HasPrefix(text, "lookup"))
			}
		}
	}
	transport := newTransport(time.Second)
	transport.DialContext = lookup
	_, err := newClient(t, Config{Transport: transport}).StableToken(t.Context(), testAppID, testSecret, false)
	equal(t, "ErrProxy without a proxy", errors.Is(err, ErrProxy), false)
	contains(t, "advice without a proxy", failure(t, err).Advice, "look at the DNS of this machine")
}

func TestProxyOfTheConfigIsUsedAndTheEnvironmentIsNot(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	received := make(chan string, 1)
	address := listen(t, func(conn net.Conn) {
		if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			received <- r.Method + " " + r.Host
			_, _ = io.WriteString(conn, "HTTP/1.1 403 no\r\nContent-Length: 0\r\n\r\n")
		}
	})
	proxy, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, Config{Proxy: func(u *url.URL) (*url.URL, error) {
		if u.Host == "api.weixin.qq.com" {
			return proxy, nil
		}
		return nil, nil
	}})
	_, err = c.StableToken(t.Context(), testAppID, testSecret, false)
	isError(t, err, ErrProxy)
	equal(t, "the proxy received", <-received, "CONNECT api.weixin.qq.com:443")

	direct := newClient(t, Config{}).transport.(*http.Transport)
	used, err := direct.Proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: "api.weixin.qq.com"}})
	if used != nil || err != nil {
		t.Errorf("without a Proxy, %v is used (%v)", used, err)
	}
}
