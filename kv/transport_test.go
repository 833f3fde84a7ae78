package kv

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestTransportAddsTheTokenToCallsOfWeChatsAPIOnly(t *testing.T) {
	t.Parallel()
	f := newTransportFixture(t, refreshed)
	token := f.publish(1)
	f.Hosts = nil
	for url, want := range map[string]string{
		apiURL:                                   apiURL + "?access_token=" + token,
		apiURL + "?a=b&c=%20":                    apiURL + "?a=b&c=%20&access_token=" + token,
		"https://API.weixin.QQ.com:443/x":        "https://API.weixin.QQ.com:443/x?access_token=" + token,
		"https://api2.weixin.qq.com/x":           "https://api2.weixin.qq.com/x?access_token=" + token,
		"https://sh.api.weixin.qq.com/x":         "https://sh.api.weixin.qq.com/x?access_token=" + token,
		"https://sz.api.weixin.qq.com/x":         "https://sz.api.weixin.qq.com/x?access_token=" + token,
		"https://hk.api.weixin.qq.com/x":         "https://hk.api.weixin.qq.com/x?access_token=" + token,
		"https://api.weixin.qq.com":              "https://api.weixin.qq.com?access_token=" + token,
		"https://api.weixin.qq.com/x#f":          "https://api.weixin.qq.com/x?access_token=" + token + "#f",
		"https://api.weixin.qq.com/snsx":         "https://api.weixin.qq.com/snsx?access_token=" + token,
		"https://api.weixin.qq.com/x?to=a_token": "https://api.weixin.qq.com/x?to=a_token&access_token=" + token,

		// All other requests are sent unchanged.
		"https://api.weixin.qq.com:8443/x":             "",
		"https://api.weixin.qq.com.example.com/x":      "",
		"https://example.com/api.weixin.qq.com":        "",
		"https://user:api.weixin.qq.com@example.com/x": "",
		"https://mp.weixin.qq.com/x":                   "",
		"https://weixin.qq.com/x":                      "",
		"ftp://api.weixin.qq.com/x":                    "",
		"https://api.weixin.qq.com/opaque":             "",
		"http://example.com/x":                         "",
		apiURL + "?access_token=mine":                  "",
		apiURL + "?a=b&access_token=":                  "",
		apiURL + "?access%5Ftoken=mine":                "",
		"https://api.weixin.qq.com/sns/userinfo?a=b":   "",
		"https://api.weixin.qq.com//sns/userinfo":      "",
	} {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(url, "/opaque") { // the URL then does not show what is sent
			req.URL.Opaque = "//api.weixin.qq.com/sns/x"
		}
		req.Host = "api.weixin.qq.com" // the header does not decide where a request is sent
		if _, err := f.do(req); err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		calls := f.wechat.called()
		got := calls[len(calls)-1].req
		switch {
		case want == "" && got != req:
			t.Errorf("%s was changed", url)
		case want != "" && got.URL.String() != want:
			t.Errorf("%s was sent as %s, want %s", url, got.URL, want)
		case req.URL.Opaque == "" && req.URL.String() != url:
			t.Errorf("the caller's request was changed to %s", req.URL)
		}
	}
}

func TestTransportEscapesTheToken(t *testing.T) {
	t.Parallel()
	f := newTransportFixture(t, refreshed)
	c := credential(1, time.Hour)
	c.Value = "a&b=c+d%/?#"
	f.wechat.set(c.Value, true)
	put(t, f.reader, c)
	f.expect(context.Background(), nil, echo(""))
}

func TestTransportRefusesToSendATokenUnencrypted(t *testing.T) {
	t.Parallel()
	f := newTransportFixture(t, refreshed)
	f.publish(1)
	f.Hosts = []string{"api.weixin.qq.com", "127.0.0.1", "[::1]:8080", "LOCALHOST:80", "10.0.0.1:8080"}
	for url, refused := range map[string]bool{
		"http://api.weixin.qq.com/x":                              true,
		"http://api.weixin.qq.com:80/x":                           true,
		"http://10.0.0.1:8080/x":                                  true,
		"http://api.weixin.qq.com/sns/userinfo?access_token=mine": true,
		"http://127.0.0.1/x":                                      false,
		"http://[::1]:8080/x":                                     false,
		"http://localhost/x":                                      false,
		"https://api.weixin.qq.com/x":                             false,
	} {
		before := len(f.wechat.called())
		body := &onlyOnce{Reader: strings.NewReader("x")}
		req, err := http.NewRequest(http.MethodPost, url, body)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.do(req)
		if (err != nil) != refused {
			t.Errorf("%s: %v, want an error: %t", url, err, refused)
		}
		if sent := len(f.wechat.called()) > before; sent == refused {
			t.Errorf("%s: sent: %t, want %t", url, sent, !refused)
		}
		if !body.closed {
			t.Errorf("%s: the body was not closed", url)
		}
	}
}

func TestTransportRefusesToFetchTokens(t *testing.T) {
	t.Parallel()
	f := newTransportFixture(t, refreshed)
	f.publish(1)
	for _, path := range []string{
		"/cgi-bin/token?grant_type=client_credential", "/cgi-bin/stable_token?access_token=mine", "//cgi-bin//token",
		"/cgi-bin/token/",
	} {
		req, err := http.NewRequest(http.MethodGet, "https://api.weixin.qq.com"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.do(req); err == nil || !strings.Contains(err.Error(), "read the token from the Reader") {
			t.Errorf("%s: %v, want an error with advice", path, err)
		}
	}
	f.checkCounts(0, 0)
}

func TestTransportThatNoReaderMadeReturnsAnError(t *testing.T) {
	t.Parallel()
	body := &onlyOnce{Reader: strings.NewReader("x")}
	resp, err := (&http.Client{Transport: &Transport{}}).Post(apiURL, "", body)
	if err == nil {
		resp.Body.Close()
		t.Fatal("the request was sent")
	}
	if !strings.Contains(err.Error(), "Reader.Transport") {
		t.Errorf("%v, want an error with advice", err)
	}
	if !body.closed {
		t.Error("the body was not closed")
	}
}

// A program with such a mistake would otherwise wait at each request.
func TestTransportOfAnAccountThatCannotHaveATokenReturnsAnErrorAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := idleReader(t, ReaderConfig{AppIDs: []string{"wx1"}})
		for appid, text := range map[string]string{
			"wx1.access_token": `"wx1.access_token" is not an AppID`,
			"":                 `"" is not an AppID`,
			"wx2":              "does not follow account wx2",
		} {
			wechat := new(fakeWeChat)
			transport := r.Transport(appid)
			transport.Base = wechat
			resp, err := (&http.Client{Transport: transport}).Get(apiURL)
			if err == nil {
				resp.Body.Close()
				t.Errorf("%q: the request was sent", appid)
				continue
			}
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("%q: %v, want ErrNotFound", appid, err)
			}
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%q: %v, want an error with %q", appid, err, text)
			}
			if n := len(wechat.called()); n != 0 {
				t.Errorf("%q: %d calls of WeChat", appid, n)
			}
		}
		checkWaited(t, began, 0)
	})
}
