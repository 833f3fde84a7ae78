package worker

import (
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// virtualWeChat issues one credential, by the rule of its kind.
type virtualWeChat struct {
	*fleet
	rule   policy.Rule
	life   time.Duration
	odd    []time.Duration // lives that it answers instead, if it may be odd
	issued int
	ended  map[string]time.Time // when the life of each value ends

	value, before   string // the valid value, and the one that it has replaced
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
		e := &wechat.Error{Class: u.class, Sent: true}
		if u.class == wechat.ClassDailyQuota && rapid.Bool().Draw(u.T, "asks to wait") {
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
	if left < time.Second || hard || u.rule == policy.Classic || u.rule == policy.Stable &&
		left <= min(bothValid, u.life/3) {
		u.mint()
	}
	issued := wechat.Issued{Value: u.value, ExpiresIn: u.ends.Sub(u.now).Truncate(time.Second)}
	if u.rule == policy.Ticket {
		issued.ExpiresIn = u.life // constant, however old it is
	}
	return issued, nil
}

// bothValid is for how long a token stays valid after it was replaced (docs/wechat-api.md).
const bothValid = 5 * time.Minute

// mint replaces the valid value. The old one stays valid for that time, but not beyond its end.
func (u *virtualWeChat) mint() {
	u.before, u.beforeEnd = u.value, u.now.Add(bothValid)
	if u.ends.Before(u.beforeEnd) {
		u.beforeEnd = u.ends
	}
	u.issued++
	u.value, u.ends = fmt.Sprint("value", u.issued), u.now.Add(u.life)
	u.ended[u.value] = u.ends
}

// foreign is a refresh by another system, so that the valid value dies at once.
func (u *virtualWeChat) foreign() {
	u.mint()
	u.before = ""
	u.Logf("%s another system refreshes: %s is valid now", u.clock(), u.value)
}

// accepts reports whether a value may be used.
func (u *virtualWeChat) accepts(value string) bool {
	return value == u.value && u.now.Before(u.ends) || value == u.before && u.now.Before(u.beforeEnd)
}
