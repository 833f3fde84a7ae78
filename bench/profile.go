package main

import "time"

// profile has the sizes and durations of a run.
type profile struct {
	repeats  int
	together string // rows that run at the same time, because they wait most of their time

	// rate is calls a second of each service, and fleetRate of all services of a system together: hundreds of processes
	// on two cores must not wait for each other.
	rate, fleetRate float64

	// (a)
	readFor time.Duration

	// (b): lives of two hours, lifeScale times faster.
	services  []int
	lifeScale float64
	lives     float64

	// (c): real time, so that limits in seconds and minutes count as they are.
	kills      []int
	killWithin time.Duration
	killFor    time.Duration
	killFleet  int

	// (d), (e): lives of two hours, faultScale times faster; the busy time and the absence are in real time. ahead is
	// the margin of wxkeeper and of the token server.
	faultScale float64
	faultFleet int
	ahead      time.Duration
	busy       time.Duration
	absent     time.Duration

	// (f)
	accounts []int
	idleFor  time.Duration

	// (g)
	rounds     int
	resolveFor time.Duration
}

var full = profile{
	repeats: 3, together: "de", rate: 5, fleetRate: 10,
	readFor:  time.Second,
	services: []int{1, 10, 30}, lifeScale: 150, lives: 3,
	kills: []int{1, 2, 5}, killWithin: 45 * time.Second, killFor: time.Minute, killFleet: 10,
	faultScale: 30, faultFleet: 5, ahead: 80 * time.Second, busy: time.Minute, absent: time.Minute,
	accounts: []int{1, 100, 10_000}, idleFor: 20 * time.Second,
	rounds: 5, resolveFor: 2 * time.Second,
}

var smoke = profile{
	repeats: 1, together: "bcde", rate: 5, fleetRate: 10,
	readFor:  50 * time.Millisecond,
	services: []int{1, 3}, lifeScale: 300, lives: 1.5,
	kills: []int{1, 2}, killWithin: 5 * time.Second, killFor: 10 * time.Second, killFleet: 2,
	faultScale: 200, faultFleet: 2, ahead: 12 * time.Second, busy: 5 * time.Second, absent: 5 * time.Second,
	accounts: []int{1, 100}, idleFor: time.Second,
	rounds: 1, resolveFor: 300 * time.Millisecond,
}

// life is the life of a token at a scale.
func life(scale float64) time.Duration { return scaled(2*time.Hour, scale) }

func scaled(d time.Duration, scale float64) time.Duration { return time.Duration(float64(d) / scale) }
