//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package embedded

import (
	"errors"
	"os"
)

// flock refuses: without a lock two servers on one directory destroy it.
func flock(*os.File) error {
	return errors.New("the embedded NATS server is not built for this operating system: set NATS_URL to a NATS server")
}

func funlock(*os.File) error { return nil }
