package main

import "testing"

func TestSimulateStopsCleanly(t *testing.T) {
	t.Parallel()
	code, printed := startVerb(t, "simulated WeChat ready: ", "simulate", "--listen=127.0.0.1:0",
		"--control=127.0.0.1:0")()
	if code != exitOK {
		t.Errorf("exit code %d: %s", code, printed)
	}
}
