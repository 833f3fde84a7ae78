package service

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/silenceper/wechat/v2"
	"github.com/silenceper/wechat/v2/cache"
	"github.com/silenceper/wechat/v2/officialaccount/config"
	"github.com/silenceper/wechat/v2/util"
	"golang.org/x/sync/errgroup"
)

// Account is an account of the simulated WeChat.
type Account struct{ AppID, Secret string }

// Hold is one process with the SDK that has the tokens of many accounts in memory. It asks for 32 at once, like a
// worker of wxkeeper, prints Ready and the seconds that it took, and waits for the end of ctx.
func Hold(ctx context.Context, api string, accounts []Account, out io.Writer) error {
	util.SetURIModifier(func(uri string) string { return strings.Replace(uri, wechatURL, api, 1) })
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 32
	util.DefaultHTTPClient = &http.Client{Timeout: callTimeout, Transport: transport}
	sdk := wechat.NewWechat()
	store := &scaledCache{Cache: cache.NewMemory(), scale: 1}
	began := time.Now()
	var calls errgroup.Group
	calls.SetLimit(32)
	for _, a := range accounts {
		held := sdk.GetOfficialAccount(&config.Config{
			AppID: a.AppID, AppSecret: a.Secret, Cache: store, UseStableAK: true,
		})
		calls.Go(func() error {
			_, err := held.GetAccessToken()
			return err
		})
	}
	if err := calls.Wait(); err != nil {
		return fmt.Errorf("fetch the tokens of %d accounts", len(accounts)) // the error may name a secret
	}
	if _, err := fmt.Fprintf(out, "%s %.3f\n", Ready, time.Since(began).Seconds()); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
