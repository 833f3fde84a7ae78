package service

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/silenceper/wechat/v2/cache"

	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

func TestLivesInTheCacheAreDivided(t *testing.T) {
	t.Parallel()
	var r recorder
	c := &scaledCache{Cache: &r, scale: 150}
	if err := c.Set("key", "value", 5700*time.Second); err != nil {
		t.Fatal(err)
	}
	if r.life != 38*time.Second {
		t.Errorf("the life is %s, want 38s", r.life)
	}
}

// recorder is a cache that records the life of the last entry.
type recorder struct {
	cache.Cache
	life time.Duration
}

func (r *recorder) Set(_ string, _ any, life time.Duration) error { r.life = life; return nil }

func TestOnlyARefusalOfTheTokenItselfIsReported(t *testing.T) {
	t.Parallel()
	for code, want := range map[refused]bool{40001: true, 40014: true, 42001: true, -1: false, 45009: false} {
		if code.dead() != want {
			t.Errorf("errcode %d: %v", int(code), code.dead())
		}
	}
}

// A service says when it is ready, waits for its order, counts the calls that WeChat refuses, and ends with its input.
func TestServiceCountsTheCallsThatFail(t *testing.T) {
	t.Parallel()
	wx := wechattest.Start(t, wechattest.Config{Accounts: []wechattest.Account{{AppID: "wx1", Secret: "s1"}}})
	in, orders := io.Pipe()
	lines, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- Run(t.Context(), Config{
			System: Memory, API: wx.URL, AppID: "wx1", Secret: "s1", Scale: 1, Rate: 100,
		}, in, out)
		_ = out.Close() // of a pipe: it returns no error
	}()
	scan := bufio.NewScanner(lines)
	if !scan.Scan() || scan.Text() != Ready {
		t.Fatalf("the first line is %q", scan.Text())
	}
	wx.Inject(wechattest.Fault{Endpoint: "get_api_domain_ip", Errcode: 40001})
	if _, err := io.WriteString(orders, "go\n"); err != nil {
		t.Fatal(err)
	}
	var c Counts
	if !scan.Scan() {
		t.Fatal("no counts")
	}
	if err := json.Unmarshal(scan.Bytes(), &c); err != nil || c.Calls == 0 || c.Failed != c.Calls {
		t.Errorf("got %+v, %v: WeChat refused every call", c, err)
	}
	_ = orders.Close()
	for scan.Scan() {
		continue // until the service has ended
	}
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
