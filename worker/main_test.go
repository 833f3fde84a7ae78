package worker

import (
	"flag"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// These tests wait for servers, not for the processor.
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// patience limits waits for events that must come, so that a test that hangs fails. It is no claim about speed.
const patience = 1 * time.Minute

// Leases of workers in tests.
const (
	usualLease = 12 * time.Second // of production, with the default timeout
	longLease  = time.Minute      // of workers that must not lose it because the machine is busy
	// shortLease is for a worker whose lease must end by itself, but not before the worker has reached a given step.
	shortLease = 20 * time.Second
)

const (
	appid  = "wx0123456789abcdef"
	secret = "CANARY-SECRET-0123456789"
	// The sample of WeChat's page about tickettocode.
	openid     = "oiV2luCau8Cx0TMOy9lvZSLqRcKc"
	codeTicket = "6cb4bc95e1f1abc97034cbe8fd484989"
)
