package wechattest_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// In a test, Start(t, cfg) starts and closes the server.
func Example() {
	wx := wechattest.New(wechattest.Config{
		Accounts: []wechattest.Account{{AppID: "wx1", Secret: "s1"}},
	})
	server := httptest.NewServer(wx)
	defer server.Close()

	ask := func() string {
		res, err := http.Get(server.URL + "/cgi-bin/token?grant_type=client_credential&appid=wx1&secret=s1")
		if err != nil {
			return err.Error()
		}
		defer func() { _ = res.Body.Close() }()
		b, _ := io.ReadAll(res.Body)
		return string(b)
	}

	wx.Inject(wechattest.Fault{
		Endpoint: "token", Times: 1, Errcode: -1, Errmsg: "system error rid: 6a1b2c3d-4e5f6071-1a2b3c4d",
	})
	fmt.Println(ask())
	ask()
	fmt.Println(wx.Calls("wx1", "token"), "calls,", wx.Minted("wx1", "token"), "token")

	token, _ := wx.ForeignRefresh("wx1", "token") // another system of the same account
	fmt.Println(wx.Validity("wx1", "access_token", token))
	wx.Revoke(token)
	fmt.Println(wx.Validity("wx1", "access_token", token))

	// Output:
	// {"errcode":-1,"errmsg":"system error rid: 6a1b2c3d-4e5f6071-1a2b3c4d"}
	// 2 calls, 1 token
	// valid
	// dead
}
