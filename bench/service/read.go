package service

import (
	"context"
	"fmt"
	"io"
	"time"
)

// Read measures the reading of a token: it prints the nanoseconds of one read, over reads that take the duration
// together.
func Read(ctx context.Context, c Config, d time.Duration, out io.Writer) error {
	client, err := newClient(ctx, c)
	if err != nil {
		return err
	}
	defer client.close()
	if err := awaitFirst(ctx, client.call); err != nil {
		return err
	}
	for batch := 1; ; batch *= 2 {
		began := time.Now()
		for range batch {
			if _, err := client.token(ctx); err != nil {
				return err
			}
		}
		if took := time.Since(began); took >= d {
			_, err := fmt.Fprintf(out, "%.3f\n", float64(took.Nanoseconds())/float64(batch))
			return err
		}
	}
}
