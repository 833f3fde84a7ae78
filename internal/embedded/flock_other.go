//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package embedded

import (
	"errors"
	"os"
)

var errUnsupported = errors.New(
	"the embedded NATS server is not built for this operating system: set NATS_URL to a NATS server")

// flock returns an error: without a lock two servers would start on one directory and destroy the store.
func flock(*os.File) error { return errUnsupported }

func isFlocked(*os.File) bool { return false }

func funlock(*os.File) error { return nil }
