package worker

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// A service that has mixed up the two sends the AppSecret over NATS. The worker must not spread it.
func TestAppSecretInARequestIsRefusedWithoutShowingIt(t *testing.T) {
	t.Parallel()
	const mixedUp = "fedcba98765432100123456789abcdef"
	f := newFixture(t, wechattest.Config{})
	log := new(logLines)
	w := f.worker(func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	w.await(messages.AccessToken, 0)
	nc := f.connect()
	for _, subject := range messages.Subjects {
		const rest = `"openid":"o","code_ticket":"t","url":"https://example.com/","card_id":"c"}`
		for subject, body := range map[string]string{
			messages.DefaultPrefix + "." + subject:                 `{"appid":"` + mixedUp + `",` + rest,
			messages.DefaultPrefix + "." + subject + "." + mixedUp: `{` + rest,
		} {
			reply, err := nc.RequestWithContext(w.context(), subject, []byte(body))
			if err != nil {
				t.Fatal(err)
			}
			text := string(reply.Data) + reply.Header.Get(messages.HeaderError)
			if !strings.Contains(text, `"invalid_request"`) || strings.Count(text, "looks like an AppSecret") != 2 {
				t.Errorf("%.24s…: %s", subject, text)
			}
			if strings.Contains(text, mixedUp[:8]) {
				t.Errorf("%.24s…: the reply shows the AppSecret: %s", subject, text)
			}
		}
	}
	_, metrics := w.page("/metrics")
	_, page := w.page("/")
	if log.count(mixedUp[:8]) > 0 || strings.Contains(metrics+page, mixedUp[:8]) {
		t.Errorf("the AppSecret is in the log, the metrics or the page")
	}
	_, err := New(nc, Config{Accounts: []Account{{AppID: mixedUp, Secret: secret}}})
	if !errors.Is(err, messages.ErrAppSecret) || strings.Contains(err.Error(), mixedUp[:8]) {
		t.Errorf("an account with an AppSecret for an AppID: %v", err)
	}
}
