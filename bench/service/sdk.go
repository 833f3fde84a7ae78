package service

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/silenceper/wechat/v2"
	"github.com/silenceper/wechat/v2/cache"
	"github.com/silenceper/wechat/v2/officialaccount"
	"github.com/silenceper/wechat/v2/officialaccount/config"
	"github.com/silenceper/wechat/v2/util"
)

// wechatURL is where the SDK sends its calls. Its own hook, util.SetURIModifier, points it elsewhere.
const wechatURL = "https://api.weixin.qq.com"

// sdk is a service with github.com/silenceper/wechat/v2.
type sdk struct {
	account *officialaccount.OfficialAccount
}

func newSDK(c Config) sdk {
	util.SetURIModifier(func(uri string) string { return strings.Replace(uri, wechatURL, c.API, 1) })
	util.DefaultHTTPClient = &http.Client{Timeout: callTimeout}
	var store cache.Cache = cache.NewMemory()
	if c.System == Redis || c.System == RedisStable {
		store = cache.NewRedis(context.Background(), &cache.RedisOpts{Host: c.Backend, MaxIdle: 2})
	}
	if c.Rate > 0 { // only calls that meet need the lock, and only they need a scale
		store = &scaledCache{Cache: store, scale: c.Scale}
	}
	return sdk{wechat.NewWechat().GetOfficialAccount(&config.Config{
		AppID: c.AppID, AppSecret: c.Secret, Cache: store,
		UseStableAK: c.System == MemoryStable || c.System == RedisStable,
	})}
}

func (s sdk) token(context.Context) (string, error) { return s.account.GetAccessToken() }

func (s sdk) call(context.Context) error {
	_, err := s.account.GetBasic().GetAPIDomainIP()
	return err
}

func (sdk) close() {}

// scaledCache divides the life of each entry. Its lock is for cache.Memory, which reads its map without one, and would
// end the process when two calls meet.
type scaledCache struct {
	cache.Cache
	scale float64
	mu    sync.Mutex
}

// Get returns an entry, or nil.
func (c *scaledCache) Get(key string) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Cache.Get(key)
}

// Set stores an entry.
func (c *scaledCache) Set(key string, value any, life time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Cache.Set(key, value, time.Duration(float64(life)/c.scale))
}
