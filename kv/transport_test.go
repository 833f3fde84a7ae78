package kv

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestTransportAddsTheTokenToCallsOfWeChatsAPIOnly(t *testing.T) {
	t.Parallel()
	s := newScene(t, refreshed)
	token := s.apply(1)
	s.Hosts = nil
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

		// All else passes as it is, and is the caller's own request.
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
		if strings.HasSuffix(url, "/opaque") { // what is sent then is not what the URL says
			req.URL.Opaque = "//api.weixin.qq.com/sns/x"
		}
		req.Host = "api.weixin.qq.com" // the header says nothing of where a request goes
		if _, err := s.do(req); err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		calls := s.wechat.called()
		got := calls[len(calls)-1].req
		switch {
		case want == "" && got != req:
			t.Errorf("%s was not left alone", url)
		case want != "" && got.URL.String() != want:
			t.Errorf("%s was sent as %s, want %s", url, got.URL, want)
		case req.URL.Opaque == "" && req.URL.String() != url:
			t.Errorf("the caller's request was changed to %s", req.URL)
		}
	}
}

func TestTransportEscapesTheToken(t *testing.T) {
	t.Parallel()
	s := newScene(t, refreshed)
	c := credential(1, time.Hour)
	c.Value = "a&b=c+d%/?#"
	s.wechat.set(c.Value, true)
	s.reader.Apply(c)
	if got, err := s.get(context.Background(), nil); err != nil || got != `{"echo":""}` {
		t.Errorf("%s, %v", got, err)
	}
}

func TestTransportRefusesToSendATokenInTheClear(t *testing.T) {
	t.Parallel()
	s := newScene(t, refreshed)
	s.apply(1)
	s.Hosts = []string{"api.weixin.qq.com", "127.0.0.1", "[::1]:8080", "LOCALHOST:80", "10.0.0.1:8080"}
	for url, refused := range map[string]bool{
		"http://api.weixin.qq.com/x": true, "http://api.weixin.qq.com:80/x": true, "http://10.0.0.1:8080/x": true,
		"http://api.weixin.qq.com/sns/userinfo?access_token=mine": true,
		"http://127.0.0.1/x": false, "http://[::1]:8080/x": false, "http://localhost/x": false, "https://api.weixin.qq.com/x": false,
	} {
		before := len(s.wechat.called())
		body := &closing{Reader: strings.NewReader("x")}
		req, err := http.NewRequest(http.MethodPost, url, body)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.do(req)
		if sent := len(s.wechat.called()) > before; sent == refused || (err != nil) != refused {
			t.Errorf("%s: sent %v, %v", url, sent, err)
		}
		if !body.closed {
			t.Errorf("%s: the body was not closed", url)
		}
	}
}

func TestTransportRefusesToFetchTokens(t *testing.T) {
	t.Parallel()
	s := newScene(t, refreshed)
	s.apply(1)
	for _, path := range []string{"/cgi-bin/token?grant_type=client_credential", "/cgi-bin/stable_token?access_token=mine", "//cgi-bin//token", "/cgi-bin/token/"} {
		req, err := http.NewRequest(http.MethodGet, "https://api.weixin.qq.com"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.do(req); err == nil || !strings.Contains(err.Error(), "ask the Reader") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if n := len(s.wechat.called()); n != 0 {
		t.Errorf("%d calls were sent", n)
	}
}

func TestTransportThatNoReaderMadeSaysSo(t *testing.T) {
	t.Parallel()
	body := &closing{Reader: strings.NewReader("x")}
	resp, err := (&http.Client{Transport: &Transport{}}).Post(apiURL, "", body)
	if err == nil {
		resp.Body.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "Reader.Transport") || !body.closed {
		t.Errorf("%v, the body closed: %v", err, body.closed)
	}
}
