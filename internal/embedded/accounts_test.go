package embedded_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/embedded"
)

// exports are those of an installation with the bucket b.
var exports = embedded.Exports{
	Requests: []string{"svc.ask.*", "$JS.API.DIRECT.GET.KV_b.$KV.b.*"}, Surveys: []string{"$SRV.>"},
	Messages: []string{"svc.published.*"},
}

func TestClientsNeedAToken(t *testing.T) {
	t.Parallel()
	configured := "S3CRET-of-16-and-more"
	for name, tt := range map[string]struct {
		cfg  embedded.Config
		good nats.Option // nil: the generated token
		bad  nats.Option
	}{
		"generated": {embedded.Config{}, nil, nats.Token("S3CRET-guess")},
		"token":     {embedded.Config{Token: redacted(configured)}, nats.Token(configured), nats.Token("S3CRET-guess")},
		"user": {embedded.Config{User: "u", Password: redacted(configured)}, nats.UserInfo("u", configured),
			nats.UserInfo("u", "S3CRET-guess")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r record
			tt.cfg.Listen, tt.cfg.DataDir, tt.cfg.Logger = "0.0.0.0:0", t.TempDir(), slog.New(&r)
			s := start(t, tt.cfg)
			if !strings.HasPrefix(s.URL(), "nats://127.0.0.1:") {
				t.Errorf("the URL is %q", s.URL())
			}
			for what, opt := range map[string]nats.Option{"nothing": nil, "a guess": tt.bad} {
				if _, err := nats.Connect(s.URL(), nats.Timeout(patience), opt); !errors.Is(err,
					nats.ErrAuthorization) {
					t.Errorf("with %s: %v", what, err)
				}
			}
			if tt.good == nil {
				tt.good = token(t, tt.cfg.DataDir, embedded.Consumers)
			} else if found, err := embedded.Find(tt.cfg.DataDir, embedded.Consumers); err != nil || !found.Configured ||
				found.Token != "" {
				t.Errorf("found %+v, %v", found, err)
			}
			connect(t, s.URL(), tt.good)
			for _, nc := range []*nats.Conn{
				connect(t, "", s.InProcess()), connect(t, s.URL(), token(t, tt.cfg.DataDir, embedded.Workers)),
			} {
				bucket(t, nc)
			}
			s.Shutdown()
			seen := map[slog.Level]bool{}
			for _, line := range r.get() {
				seen[line.Level] = true
				text := line.Message
				line.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
				if strings.Contains(text, "S3CRET") {
					t.Errorf("the log shows a secret: %s", text)
				}
			}
			for level, what := range map[slog.Level]string{
				slog.LevelDebug: "a notice of nats-server", slog.LevelInfo: "the start", slog.LevelWarn: "the refusals",
			} {
				if !seen[level] {
					t.Errorf("%s is not logged at level %s", what, level)
				}
			}
		})
	}
}

// A consumer is served by workers, and receives what they publish.
func TestConsumersSeeWhatIsExported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, embedded.Config{DataDir: dir, Exports: exports})
	worker, consumer := connect(t, "", s.InProcess()), connect(t, s.URL(), token(t, dir, embedded.Consumers))
	if _, err := bucket(t, worker).PutString(testContext(t), "k", "v"); err != nil {
		t.Fatal(err)
	}
	// A client sends a request again at once if it knows that no worker runs.
	if _, err := consumer.RequestWithContext(testContext(t), "svc.ask.k", nil); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("without a worker: %v", err)
	}
	if _, err := worker.QueueSubscribe("svc.ask.*", "q", func(m *nats.Msg) { _ = m.Respond([]byte("yes")) }); err != nil {
		t.Fatal(err)
	}
	sub, err := consumer.SubscribeSync("svc.published.*")
	if err == nil {
		err = errors.Join(worker.Flush(), consumer.Flush(), worker.Publish("svc.published.k", []byte("new")))
	}
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	m, err := sub.NextMsgWithContext(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	got["message"] = string(m.Data)
	for what, subject := range map[string]string{"request": "svc.ask.k", "direct get": "$JS.API.DIRECT.GET.KV_b.$KV.b.k"} {
		m, err := consumer.RequestWithContext(testContext(t), subject, nil)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got[what] = string(m.Data)
	}
	if d := cmp.Diff(map[string]string{"message": "new", "request": "yes", "direct get": "v"}, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// NATS executes a reply whose subject is its own API. A consumer aims each of its rights, and what it has no right to,
// at the store: nothing changes there.
func TestConsumersCannotTouchTheStore(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]bool{"with the token": false, "open": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := start(t, embedded.Config{DataDir: dir, Exports: exports, Open: open})
			worker := connect(t, "", s.InProcess())
			ctx := testContext(t)
			for key, value := range map[string]string{"k": "v", "other": "w"} {
				if _, err := bucket(t, worker).PutString(ctx, key, value); err != nil {
					t.Fatal(err)
				}
			}
			js, err := jetstream.New(worker)
			if err != nil {
				t.Fatal(err)
			}
			state := func() jetstream.StreamInfo {
				t.Helper()
				stream, err := js.Stream(ctx, "KV_b")
				if err != nil {
					t.Fatal(err)
				}
				info := *stream.CachedInfo()
				info.TimeStamp = time.Time{}
				return info
			}
			spies := map[string]*nats.Subscription{} // in the workers' account
			for _, subject := range []string{"$KV.>", "svc.published.>", "svc.event.>", "_INBOX.other.>"} {
				if spies[subject], err = worker.SubscribeSync(subject); err != nil {
					t.Fatal(err)
				}
			}
			asked := make(chan struct{}, 1)
			if _, err := worker.Subscribe("svc.ask.last", func(*nats.Msg) { asked <- struct{}{} }); err != nil {
				t.Fatal(err)
			}
			if err := worker.Flush(); err != nil {
				t.Fatal(err)
			}
			before := state()

			auth := nats.Option(nil)
			if !open {
				auth = token(t, dir, embedded.Consumers)
			}
			consumer := connect(t, s.URL(), auth)
			targets := []string{"", "$JS.API.STREAM.DELETE.KV_b", "$JS.API.STREAM.PURGE.KV_b", "$KV.b.other", "$KV.b.new",
				"$JS.API.CONSUMER.CREATE.KV_b", "svc.published.k", "svc.event.k", "_INBOX.other.1", "$SRV.PING", "svc.ask.k"}
			rights := append([]string{"$JS.API.DIRECT.GET.KV_b.$KV.b.k", "$JS.API.DIRECT.GET.KV_b", "$JS.API.INFO",
				"$JS.API.STREAM.INFO.KV_b", "$SRV.INFO", "svc.ask.k"}, targets[1:]...)
			for _, right := range rights {
				for _, target := range targets {
					for _, body := range []string{"", "{}", `{"no_hdr":true}`, `{"last_by_subj":"$KV.b.other"}`} {
						m := &nats.Msg{Subject: right, Reply: target, Data: []byte(body)}
						if err := consumer.PublishMsg(m); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			if err := consumer.Publish("svc.ask.last", nil); err != nil { // it arrives after all the others
				t.Fatal(err)
			}
			select {
			case <-asked:
			case <-ctx.Done():
				t.Fatal("the consumer's requests do not arrive")
			}
			if d := cmp.Diff(before, state()); d != "" {
				t.Errorf("the stream: -before +after\n%s", d)
			}
			if err := worker.Flush(); err != nil {
				t.Fatal(err)
			}
			for subject, spy := range spies {
				if n, _, err := spy.Pending(); err != nil || n > 0 {
					t.Errorf("%d messages on %s arrive in the workers' account: %v", n, subject, err)
				}
			}
		})
	}
}
