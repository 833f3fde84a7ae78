package kvtest_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/kv/kvtest"
	"github.com/wxkeeper/wxkeeper/messages"
)

func Example() {
	bucket := kvtest.NewBucket()
	defer bucket.Close()
	reader := bucket.Reader(kv.ReaderConfig{AppIDs: []string{"wx0123456789abcdef"}})
	token := reader.Handle("wx0123456789abcdef", messages.AccessToken)

	bucket.Set("wx0123456789abcdef", messages.AccessToken, "first", 2*time.Hour)
	fmt.Println(token.Value())

	bucket.Disconnect() // without NATS, the Reader returns the value that it holds until the value expires
	bucket.Set("wx0123456789abcdef", messages.AccessToken, "second", 4*time.Hour)
	fmt.Println(token.Value())
	bucket.Advance(2 * time.Hour)
	_, err := token.Value()
	fmt.Println(errors.Is(err, kv.ErrExpired))

	bucket.Reconnect()
	fmt.Println(token.Value())
	// Output:
	// first <nil>
	// first <nil>
	// true
	// second <nil>
}

// A service that calls WeChat through a Transport is tested against an HTTP server in place of WeChat.
func ExampleBucket_Reader_transport() {
	wechat := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("access_token") == "first" { // another system has replaced it
			fmt.Fprint(w, `{"errcode":40001,"errmsg":"invalid credential"}`)
			return
		}
		fmt.Fprint(w, `{"ip_list":[]}`)
	}))
	defer wechat.Close()
	bucket := kvtest.NewBucket()
	defer bucket.Close()
	bucket.Set("wx0123456789abcdef", messages.AccessToken, "first", 2*time.Hour)

	transport := bucket.Reader(kv.ReaderConfig{}).Transport("wx0123456789abcdef")
	// by default, only WeChat's hosts get the token
	transport.Hosts = []string{strings.TrimPrefix(wechat.URL, "http://")}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	resp, err := client.Get(wechat.URL + "/cgi-bin/get_api_domain_ip")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Println(string(body), err, bucket.Reports())
	// Output: {"ip_list":[]} <nil> 1
}
