package wechat

import (
	"strings"
	"time"
)

// A verdict is what one errcode means at one class of endpoint.
type verdict struct {
	class  Class
	wait   time.Duration // see Error.Wait
	advice string        // see Error.Advice; callerIP in it becomes the IP that WeChat named
}

// callerIP stands in an advice for the IP from which WeChat saw the call.
const callerIP = "{ip}"

// same is for an errcode that means the same wherever it comes from.
func same(v verdict) [2]verdict { return [2]verdict{v, v} }

// Places of a verdict in a row of errcodes.
const (
	atToken = iota // token, stable_token: the AppSecret was shown
	atAPI          // getticket, tickettocode, get_api_domain_ip: an access_token was shown
)

// Advices that several errcodes share.
const (
	adviceBug = "WeChat calls the request malformed: if WECHAT_API_URL names a proxy or relay, look whether it changes " +
		"requests; otherwise report this to wxkeeper with the rid"
	adviceRelay = "WeChat answers for a parameter that this request does not have: if WECHAT_API_URL names a proxy or relay, " +
		"look whether it changes or mixes up requests; otherwise report this to wxkeeper with the rid"
	adviceSecret = "correct the AppSecret of this account (WECHAT_SECRET, WECHAT_SECRET_FILE, the same of " +
		"WECHAT_ACCOUNTS_0_ and so on, or WECHAT_ACCOUNTS_FILE): it is wrong, was reset in the console, or belongs to another AppID"
	adviceAppID     = "correct the AppID of this account: WeChat does not know it (mind upper and lower case)"
	adviceWhiteList = "put " + callerIP + " on the API IP white list of this account (mp.weixin.qq.com, Settings and " +
		"Development, Basic configuration); it takes effect after some minutes. Every machine that calls WeChat for an " +
		"official or service account must be listed"
	adviceQuota = "the quota of the day for this interface is used up; it is assumed to be counted anew at 00:00 " +
		"Asia/Shanghai. If the account is on WECHAT_TOKEN_API=token, move it to stable_token, which has a quota of its own " +
		"and 500,000 calls a day; look for another system that fetches for this AppID; the quota can be cleared in the " +
		"console or by clear_quota, 10 times a month"
	adviceBanned     = "WeChat has restricted this account: sign in at mp.weixin.qq.com, read the notice there, and appeal or correct"
	adviceAuthorizer = "this AppID is authorised to a third-party platform, so its tokens come from that platform " +
		"(authorizer_access_token): take it out of wxkeeper, or use an account that holds its own AppSecret"
	advicePermission = "this account has no permission for this interface: look at the interface permissions in the console " +
		"of the account (tickettocode needs a service account that applied for marketing codes); a new token does not help"
)

// errcodes is the table of wechat-api.md 1.8: errcode → what it means where the AppSecret was shown, and where an
// access_token was. Where that table has a dash the errcode is not documented there; it gets the verdict that is
// safe: nothing that leads to a refresh or a quick retry.
var errcodes = map[int][2]verdict{
	-1: same(verdict{class: ClassBusy}),

	40001: {
		atToken: {class: ClassAccount, advice: adviceSecret},
		atAPI:   {class: ClassDeadToken},
	},
	40002: same(verdict{class: ClassBug, advice: adviceBug}),
	40003: {
		atToken: {class: ClassBug, advice: adviceRelay},
		atAPI:   {class: ClassRequest},
	},
	40013: same(verdict{class: ClassAccount, advice: adviceAppID}),
	40014: {
		atToken: {class: ClassBug, advice: adviceRelay},
		atAPI:   {class: ClassDeadToken},
	},
	40097: {
		atToken: {class: ClassBug, advice: adviceBug},
		atAPI:   {class: ClassRequest},
	},
	40125: same(verdict{class: ClassAccount, advice: adviceSecret}),
	40164: same(verdict{class: ClassAccount, wait: 5 * time.Minute, advice: adviceWhiteList}),
	40243: same(verdict{class: ClassAccount, wait: 10 * time.Minute,
		advice: "the AppSecret of this account is frozen: unfreeze it in the console (it takes effect after 10 minutes)"}),

	41001: same(verdict{class: ClassBug, advice: adviceBug}),
	41002: same(verdict{class: ClassBug, advice: adviceBug}),
	41004: same(verdict{class: ClassBug, advice: adviceBug}),
	42001: {
		atToken: {class: ClassBug, advice: adviceRelay},
		atAPI:   {class: ClassDeadToken},
	},
	42007: same(verdict{class: ClassAccount,
		advice: "the authorisation of this account was voided by a change of password: authorise it again"}),
	43001: same(verdict{class: ClassBug, advice: adviceBug}),
	43002: same(verdict{class: ClassBug, advice: adviceBug}),
	43003: same(verdict{class: ClassBug, advice: "WeChat wants HTTPS: use https:// in WECHAT_API_URL, or let the relay behind it use HTTPS"}),
	44002: same(verdict{class: ClassBug, advice: adviceBug}),
	47001: same(verdict{class: ClassBug, advice: adviceBug}),

	45009: same(verdict{class: ClassDailyQuota, advice: adviceQuota}),
	45011: same(verdict{class: ClassMinuteQuota, wait: time.Minute}),
	45035: same(verdict{class: ClassAccount, wait: 5 * time.Minute, advice: adviceWhiteList}),

	48001: same(verdict{class: ClassPermission, advice: advicePermission}),
	48004: same(verdict{class: ClassAccount, advice: adviceBanned}),
	48006: same(verdict{class: ClassAccount, advice: "the quota was cleared 10 times this month, no more is allowed: wait until " +
		"00:00 Asia/Shanghai, and find out which system uses the quota up"}),
	48017: same(verdict{class: ClassBusy, advice: "WeChat was called through a retired IP: remove its hosts from /etc/hosts, and " +
		"see that DNS and proxies on the way do not keep old addresses"}),

	50002: same(verdict{class: ClassAccount, advice: adviceBanned}),
	50004: same(verdict{class: ClassAccount, advice: adviceBanned}),
	50007: same(verdict{class: ClassAccount, advice: "this account is frozen: sign in at mp.weixin.qq.com and have it unfrozen"}),

	61004: same(verdict{class: ClassAccount, wait: 5 * time.Minute, advice: adviceWhiteList}),
	61007: same(verdict{class: ClassPermission, advice: "this account did not grant the permission set of this interface to " +
		"the third-party platform (tickettocode is in set 46): have it authorised again with that set"}),
	61024: same(verdict{class: ClassAccount, advice: adviceAuthorizer}),

	// wechat-api.md 1.7: risky calls wait for the administrator of the account, who gets a template message.
	89501: same(verdict{class: ClassAccount, wait: 5 * time.Minute, advice: "calls from " + callerIP + " wait for the " +
		"administrator of the account: have the request approved in WeChat, or put the IP on the API IP white list"}),
	// Each further try may send the administrator a further message, and refusals add up to a long block: so rarely.
	89503: same(verdict{class: ClassAccount, wait: 10 * time.Minute, advice: "calls from " + callerIP + " need the consent of the " +
		"administrator of the account: have the request approved in WeChat, or put the IP on the API IP white list"}),
	89506: same(verdict{class: ClassAccount, wait: 24 * time.Hour, advice: "the administrator refused calls from " + callerIP +
		" twice, WeChat blocks it for 24 hours: call from another IP, or put this one on the API IP white list"}),
	89507: same(verdict{class: ClassAccount, wait: time.Hour, advice: "the administrator refused calls from " + callerIP +
		", WeChat blocks it for 1 hour: have the next request approved, or put the IP on the API IP white list"}),
}

// judge says what errcode means at endpoint e, and whether the table knows it. errmsg may name the IP for the advice.
func judge(e Endpoint, errcode int, errmsg string) (verdict, bool) {
	row, known := errcodes[errcode]
	if !known {
		return verdict{class: ClassUnknown, advice: "an errcode that wxkeeper does not know: look it up in the documentation of " +
			"WeChat (global return codes), or ask WeChat with the rid"}, false
	}
	v := row[atAPI]
	if e.takesSecret() {
		v = row[atToken]
	}
	if strings.Contains(v.advice, callerIP) {
		v.advice = strings.ReplaceAll(v.advice, callerIP, nameIPs(errmsg))
	}
	return v, true
}
