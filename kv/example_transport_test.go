package kv_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/kv"
)

// A service calls WeChat's API without handling tokens, even if another system kills the current token.
func ExampleTransport() {
	stack := startStack() // NATS, one worker, and a simulated WeChat
	defer stack.close()

	nc, err := nats.Connect(stack.natsURL, nats.MaxReconnects(-1))
	if err != nil {
		panic(err)
	}
	defer nc.Close()
	reader, err := kv.NewReader(nc, kv.ReaderConfig{})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() { _ = reader.Run(ctx) }()

	transport := reader.Transport("wx0123456789abcdef")
	transport.Hosts = []string{stack.wechatHost} // only for the simulation: by default, the hosts of WeChat's API
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}

	call := func() {
		resp, err := client.Get("http://" + stack.wechatHost + "/cgi-bin/get_api_domain_ip")
		if err != nil {
			panic(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		fmt.Printf("%s for %s\n", body, resp.Request.URL.RequestURI())
	}
	call()
	stack.killToken()
	call()

	// Output:
	// {"ip_list":["203.0.113.18","203.0.113.19","203.0.113.20"]} for /cgi-bin/get_api_domain_ip
	// {"ip_list":["203.0.113.18","203.0.113.19","203.0.113.20"]} for /cgi-bin/get_api_domain_ip
}
