// Package service is the service process of the comparison: it calls WeChat at a steady rate, each time with a token
// from the system that is measured, and counts the calls that fail. Each system is used as its own README says.
//
// # Time
//
// A run cannot wait for the two hours that a token lives. The simulated WeChat has a clock that is Scale times faster,
// and the margins of each system are divided by Scale: wxkeeper and the token server have a setting for theirs. The
// margin of silenceper/wechat is a constant (1500 s before the end, 300 s for stable_token), so its cache, which is
// an interface, gets a life that is divided.
package service
