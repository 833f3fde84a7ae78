package service

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

// Ready is the line that a service prints when its first call has succeeded, or when none has succeeded within
// startLimit: with some systems the first call of one service kills the token of another, which then stays down. The
// service then waits for a line from its standard input, calls WeChat, and ends when that input is closed.
const Ready = "ready"

const (
	interval   = time.Second // between two lines of Counts
	startLimit = 10 * time.Second
	maxOpen    = 64 // calls at a time; each ends within callTimeout
)

// Counts are the calls that have ended since the last line, as one line of JSON on the standard output.
type Counts struct {
	Calls  int `json:"calls"`
	Failed int `json:"failed"`
}

// Run is the process.
func Run(ctx context.Context, c Config, in io.Reader, out io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	client, err := newClient(ctx, c)
	if err != nil {
		return err
	}
	defer client.close()
	_ = awaitFirst(ctx, client.call)
	if _, err := fmt.Fprintln(out, Ready); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	if !lines.Scan() {
		return nil
	}
	go func() {
		for lines.Scan() {
			continue // only the end of the input matters
		}
		stop()
	}()
	return loop(ctx, c.Rate, client.call, out)
}

// awaitFirst repeats a call until it succeeds.
func awaitFirst(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		trying, done := context.WithTimeout(ctx, callTimeout)
		err := call(trying)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the first call within %s: %w", startLimit, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// loop starts a call at each tick, whether the last one has ended or not: a call that takes long must not hide others
// that would have failed.
func loop(ctx context.Context, rate float64, call func(context.Context) error, out io.Writer) error {
	var mu sync.Mutex
	var now Counts
	open := make(chan struct{}, maxOpen)
	var calls sync.WaitGroup
	defer calls.Wait()
	period := time.Duration(float64(time.Second) / rate)
	select { // services do not call at the same moments
	case <-ctx.Done():
		return nil
	case <-time.After(rand.N(period)):
	}
	tick, line := time.NewTicker(period), time.NewTicker(interval)
	defer tick.Stop()
	defer line.Stop()
	encoder := json.NewEncoder(out)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			open <- struct{}{}
			calls.Go(func() {
				defer func() { <-open }()
				calling, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
				defer cancel()
				err := call(calling)
				mu.Lock()
				defer mu.Unlock()
				now.Calls++
				if err != nil {
					now.Failed++
				}
			})
		case <-line.C:
			mu.Lock()
			c := now
			now = Counts{}
			mu.Unlock()
			if err := encoder.Encode(c); err != nil {
				return err
			}
		}
	}
}
