package kv_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/kv/kvtest"
	"github.com/wxkeeper/wxkeeper/messages"
)

// A service makes one Reader, runs it until the service ends, and gives handles to the code that needs
// credentials.
func ExampleNewReader() {
	ctx := context.Background()
	nc, err := nats.Connect("nats://127.0.0.1:4222",
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.PingInterval(5*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	reader, err := kv.NewReader(nc, kv.ReaderConfig{
		AppIDs:    []string{"wx0123456789abcdef"},
		CacheFile: "/var/lib/shop/credentials.json", // so that the service can start while NATS is not available
		OnError:   func(err error) { log.Print(err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = reader.Run(ctx) }()

	starting, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := reader.Wait(starting, "wx0123456789abcdef", messages.AccessToken); err != nil {
		log.Fatal(err)
	}
	token := reader.Handle("wx0123456789abcdef", messages.AccessToken)
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		value, err := token.Value() // for each request, because the value changes
		if err != nil {
			http.Error(w, "no credential of WeChat", http.StatusServiceUnavailable)
			return
		}
		_ = value
	})
}

func ExampleReader_Changes() {
	bucket := kvtest.NewBucket()
	defer bucket.Close()
	reader := bucket.Reader(kv.ReaderConfig{})
	bucket.Set("wx1", messages.AccessToken, "first", time.Hour)

	for c := range reader.Changes(context.Background(), "wx1") {
		fmt.Println(c.Generation, c.Value)
		if c.Generation == 3 {
			break
		}
		bucket.Set("wx1", messages.AccessToken, fmt.Sprint("after-", c.Value), time.Hour)
	}
	// Output:
	// 1 first
	// 2 after-first
	// 3 after-after-first
}

func ExampleReader_Health() {
	bucket := kvtest.NewBucket()
	defer bucket.Close()
	reader := bucket.Reader(kv.ReaderConfig{})
	bucket.Set("wx1", messages.AccessToken, "first", time.Hour)
	bucket.Disconnect()
	h := reader.Health()
	fmt.Println(h.Valid, "valid;", h.Error)
	// Output:
	// 1 valid; nats: connection closed
}
