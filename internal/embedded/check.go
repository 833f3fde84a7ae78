package embedded

import (
	"errors"
	"net"
	"syscall"

	"github.com/wxkeeper/wxkeeper/internal/setting"
)

// Check returns the error with which Start would fail, as far as it is known without starting a server. It
// leaves nothing behind: no directory, no lock, no open port.
func (c Config) Check() error {
	if _, _, err := c.validate(); err != nil {
		return err
	}
	if err := checkDir(c.DataDir); err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Listen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return addressInUse(c.Listen)
	case err != nil:
		return setting.Errorf(listenVariable, "%w", err)
	}
	return l.Close()
}
