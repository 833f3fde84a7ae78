//go:build race

package worker

// raceEnabled: the race detector is on. It makes a fleet many times slower and finds nothing in it, because a fleet runs
// in one goroutine at a time.
const raceEnabled = true
