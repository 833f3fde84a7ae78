package worker

import (
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// virtualWeChat issues one credential, by the rule of its kind (see rule).
type virtualWeChat struct {
	*fleet
	rule   rule
	life   time.Duration
	odd    []time.Duration // what it says in place of life, if it may
	issued int
	ended  map[string]time.Time // when each value dies of age

	value, before   string // the living value, and the one that it has replaced
	ends, beforeEnd time.Time

	class      wechat.Class // of its failures
	failsUntil time.Time
}

func (u *virtualWeChat) fails(class wechat.Class, d time.Duration) {
	u.class, u.failsUntil = class, u.now.Add(d)
	u.Logf("%s WeChat fails (%s) until %s", u.clock(), class, u.since(u.failsUntil))
}

// ask is one call. hard is force_refresh.
func (u *virtualWeChat) ask(hard bool) (wechat.Issued, *wechat.Error) {
	if u.now.Before(u.failsUntil) {
		e := &wechat.Error{Class: u.class}
		if u.class == wechat.ClassDailyQuota && rapid.Bool().Draw(u.T, "says when") {
			e.Wait = time.Hour
		}
		return wechat.Issued{}, e
	}
	if u.may.odd {
		return wechat.Issued{
			Value:     fmt.Sprint("odd", rapid.IntRange(1, 3).Draw(u.T, "value")),
			ExpiresIn: rapid.SampledFrom(u.odd).Draw(u.T, "expires in"),
		}, nil
	}
	left := u.ends.Sub(u.now)
	if left < time.Second || hard || u.rule == classicRule || u.rule == stableRule && left <= min(stableWindow, u.life/3) {
		u.mint()
	}
	issued := wechat.Issued{Value: u.value, ExpiresIn: u.ends.Sub(u.now).Truncate(time.Second)}
	if u.rule == ticketRule {
		issued.ExpiresIn = u.life // constant, however old it is
	}
	return issued, nil
}

// mint replaces the living value. The old one is good for 5 minutes more, though not beyond its end.
func (u *virtualWeChat) mint() {
	u.before, u.beforeEnd = u.value, u.now.Add(stableWindow)
	if u.ends.Before(u.beforeEnd) {
		u.beforeEnd = u.ends
	}
	u.issued++
	u.value, u.ends = fmt.Sprint("value", u.issued), u.now.Add(u.life)
	u.ended[u.value] = u.ends
}

// foreign is another system that refreshes, so that the living value dies at once.
func (u *virtualWeChat) foreign() {
	u.mint()
	u.before = ""
	u.Logf("%s another system refreshes: %s lives now", u.clock(), u.value)
}

// accepts says whether a value may be used.
func (u *virtualWeChat) accepts(value string) bool {
	return value == u.value && u.now.Before(u.ends) || value == u.before && u.now.Before(u.beforeEnd)
}
