package worker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// What may pass is asked for again, and logged once with its advice. What only an operator can change ends the start.
func TestStartAsksAgainForWhatMayPassAndEndsWithWhatMayNot(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	js := srv.Connect()
	const passing = 4
	answers, asked := make(chan string, 100), new(atomic.Int64)
	for range passing / 2 { // two problems that alternate
		answers <- `{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`
		answers <- `{"error":{"code":503,"err_code":10076,"description":"JetStream not enabled"}}`
	}
	answers <- `{"error":{"code":400,"err_code":10027,"description":"maximum number of streams reached"}}`
	if _, err := js.Subscribe("$JS.fake.API.>", func(m *nats.Msg) {
		asked.Add(1)
		_ = m.Respond([]byte(<-answers))
	}); err != nil {
		t.Fatal(err)
	}
	if err := js.Flush(); err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	w, err := New(srv.Connect(), Config{
		Accounts: []Account{{AppID: "wx1", Secret: secret}}, JSDomain: "fake",
		Log: slog.New(slog.NewTextHandler(&logged, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	refusal, ok := errors.AsType[*store.Refusal](w.Run(ctx))
	if !ok || !refusal.Permanent || !strings.Contains(refusal.Advice, "max_streams") {
		t.Fatalf("Run returns %v, want the permanent refusal", refusal)
	}
	if n := asked.Load(); n != passing+1 {
		t.Errorf("asked %d times, want %d", n, passing+1)
	}
	for _, code := range []string{"err_code=10008", "err_code=10076"} {
		if n := strings.Count(logged.String(), code); n != 1 {
			t.Errorf("%s is logged %d times, want once: %s", code, n, &logged)
		}
	}
	if n := strings.Count(logged.String(), "advice="); n != 2 {
		t.Errorf("%d advices, want 2: %s", n, &logged)
	}
}
