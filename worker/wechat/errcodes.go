package wechat

import (
	"strings"
	"time"
)

// A meaning is what one errcode means at one kind of endpoint.
type meaning struct {
	class  Class
	wait   time.Duration // see Error.Wait
	advice string        // see Error.Advice; callerIP in it is replaced by the IP that WeChat named
}

// The columns of errcodes.
const (
	atSecret = iota // token, stable_token: the request carries the AppSecret
	atToken         // getticket, tickettocode, get_api_domain_ip: the request carries an access_token
)

// everywhere is the row of an errcode that means the same in both columns.
func everywhere(class Class, wait time.Duration, advice string) [2]meaning {
	return [2]meaning{{class, wait, advice}, {class, wait, advice}}
}

// callerIP is the placeholder in an advice for the IP from which WeChat saw the call.
const callerIP = "{ip}"

// Each advice is an instruction for an operator, and its reason.
const (
	adviceBug = "check whether the proxy or relay in WECHAT_API_URL changes requests; without one, send this error with " +
		"its rid to the maintainers of wxkeeper: WeChat calls the request malformed"
	adviceRelay = "check whether the proxy or relay in WECHAT_API_URL changes or mixes up requests; without one, send " +
		"this error with its rid to the maintainers of wxkeeper: WeChat names a parameter that this request lacks"
	adviceHTTPS = "use https:// in WECHAT_API_URL, or let the relay there use HTTPS: WeChat accepts HTTPS only"
	adviceIP    = "remove WeChat's hosts from /etc/hosts, and check that DNS servers and proxies do not keep old " +
		"addresses: WeChat was called through a retired IP"
	adviceCoding = "let the relay in WECHAT_API_URL, or the proxy on the way, send answers as they are: wxkeeper asks " +
		"for answers without a content coding (Accept-Encoding: identity)"
	adviceProxy = "look at the proxy in HTTPS_PROXY (or HTTP_PROXY, or their lower-case forms): whether its name, port, " +
		"user and password are right, and whether it lets this machine connect to the hosts of WECHAT_API_URL; hosts in " +
		"NO_PROXY are called directly"
	adviceUnknown = "wxkeeper does not know this errcode: look it up in WeChat's documentation (global return codes), " +
		"or ask WeChat's support with the rid"

	adviceSecret = "correct the AppSecret of this account (WECHAT_SECRET or WECHAT_SECRET_FILE, their " +
		"WECHAT_ACCOUNTS_0_ forms, or WECHAT_ACCOUNTS_FILE): it is wrong, was reset in the console, or belongs to another " +
		"AppID"
	adviceAppID        = "correct the AppID of this account: WeChat does not know it (check upper and lower case)"
	adviceFrozenSecret = "the AppSecret of this account is frozen: unfreeze it in the console, and wait 10 minutes " +
		"until that takes effect"
	adviceFrozen = "sign in at mp.weixin.qq.com and have this account unfrozen: WeChat has frozen it"
	adviceBanned = "sign in at mp.weixin.qq.com, read the notice there, and appeal or correct what it names: WeChat has " +
		"restricted this account"

	adviceWhiteList = "put " + callerIP + " on the API IP white list of this account (mp.weixin.qq.com, Settings and " +
		"Development, Basic configuration), and wait some minutes until that takes effect. Every machine that calls " +
		"WeChat for an official or service account must be on the list"
	adviceConsentPending = "have the administrator of the account approve the request in WeChat, or put the IP on the " +
		"API IP white list: calls from " + callerIP + " wait for the administrator"
	adviceConsent = "have the administrator of the account approve the request in WeChat, or put the IP on the API IP " +
		"white list: calls from " + callerIP + " need the consent of the administrator"
	adviceRefusedTwice = "call from another IP, or put " + callerIP + " on the API IP white list: the administrator " +
		"refused its calls twice, and WeChat blocks it for 24 hours"
	adviceRefused = "have the administrator approve the next request, or put " + callerIP +
		" on the API IP white list: " +
		"the administrator refused its calls, and WeChat blocks it for 1 hour"

	adviceQuota = "wait until 00:00 Asia/Shanghai, when a new day is assumed to begin; if the account uses " +
		"WECHAT_TOKEN_API=token, move it to stable_token, which has a quota of its own of 500,000 calls a day; look for " +
		"another system that requests tokens for this AppID; or clear the quota in the console or with clear_quota, " +
		"10 times a month: the quota of the day for this interface is used up"
	adviceCleared = "wait until 00:00 Asia/Shanghai, and find out which system uses up the quota: it was cleared " +
		"10 times this month, and WeChat allows no more"

	advicePermission = "check the interface permissions in the console of this account: it may not use this interface " +
		"(tickettocode needs a service account that applied for marketing codes). A new token does not help"
	// adviceTicket is the advice for getticket: most accounts do not need every kind of ticket
	adviceTicket = "if this account does not need the ticket, take its kind out of WECHAT_TICKETS, or out of " +
		"`tickets` of the account in the accounts file; if it needs it, get the permission for it in the console of " +
		"this account: it may not use this ticket now"
	advicePermissionSet = "have this account authorised again with the permission set of this interface (tickettocode " +
		"is in set 46): the third-party platform was not granted that set"
	adviceAuthorise  = "authorise this account again: a change of password ended its authorisation"
	adviceAuthorizer = "remove this AppID from wxkeeper, or use an account with its own AppSecret: this AppID is " +
		"authorised to a third-party platform, which gets its tokens (authorizer_access_token)"
)

// errcodes is the table of docs/wechat-api.md#errcodes. If WeChat documents an errcode for one kind of
// endpoint only, the other column has a meaning that leads neither to a refresh nor to a quick retry.
var errcodes = map[int][2]meaning{
	-1: everywhere(ClassBusy, 0, ""),

	40001: {atSecret: {ClassAccount, 0, adviceSecret}, atToken: {ClassDeadToken, 0, ""}},
	40002: everywhere(ClassBug, 0, adviceBug),
	40003: {atSecret: {ClassBug, 0, adviceRelay}, atToken: {ClassRequest, 0, ""}},
	40013: everywhere(ClassAccount, 0, adviceAppID),
	40014: {atSecret: {ClassBug, 0, adviceRelay}, atToken: {ClassDeadToken, 0, ""}},
	40097: {atSecret: {ClassBug, 0, adviceBug}, atToken: {ClassRequest, 0, ""}},
	40125: everywhere(ClassAccount, 0, adviceSecret),
	40164: everywhere(ClassAccount, 5*time.Minute, adviceWhiteList),
	40243: everywhere(ClassAccount, 10*time.Minute, adviceFrozenSecret),

	41001: everywhere(ClassBug, 0, adviceBug),
	41002: everywhere(ClassBug, 0, adviceBug),
	41004: everywhere(ClassBug, 0, adviceBug),
	42001: {atSecret: {ClassBug, 0, adviceRelay}, atToken: {ClassDeadToken, 0, ""}},
	42007: everywhere(ClassAccount, 0, adviceAuthorise),
	43001: everywhere(ClassBug, 0, adviceBug),
	43002: everywhere(ClassBug, 0, adviceBug),
	43003: everywhere(ClassBug, 0, adviceHTTPS),
	44002: everywhere(ClassBug, 0, adviceBug),
	47001: everywhere(ClassBug, 0, adviceBug),

	45009: everywhere(ClassDailyQuota, 0, adviceQuota),
	45011: everywhere(ClassMinuteQuota, time.Minute, ""),
	45035: everywhere(ClassAccount, 5*time.Minute, adviceWhiteList),

	48001: everywhere(ClassPermission, 0, advicePermission),
	48004: everywhere(ClassAccount, 0, adviceBanned),
	48006: everywhere(ClassAccount, 0, adviceCleared),
	48017: everywhere(ClassBusy, 0, adviceIP),

	50002: everywhere(ClassAccount, 0, adviceBanned),
	50004: everywhere(ClassAccount, 0, adviceBanned),
	50007: everywhere(ClassAccount, 0, adviceFrozen),

	61004: everywhere(ClassAccount, 5*time.Minute, adviceWhiteList),
	61007: everywhere(ClassPermission, 0, advicePermissionSet),
	61024: everywhere(ClassAccount, 0, adviceAuthorizer),

	// WeChat asks the administrator of the account about a risky call (docs/wechat-api.md#ip-white-list).
	// Each further attempt may send the administrator another message, and refusals add up to a long block.
	// So the waits are long.
	89501: everywhere(ClassAccount, 5*time.Minute, adviceConsentPending),
	89503: everywhere(ClassAccount, 10*time.Minute, adviceConsent),
	89506: everywhere(ClassAccount, 24*time.Hour, adviceRefusedTwice),
	89507: everywhere(ClassAccount, time.Hour, adviceRefused),
}

// lookUp returns the meaning of errcode at endpoint e, and whether the table has it. The advice may name an IP that
// errmsg contains.
func lookUp(e Endpoint, errcode int, errmsg string) (m meaning, known bool) {
	row, known := errcodes[errcode]
	if !known {
		return meaning{ClassUnknown, 0, adviceUnknown}, false
	}
	m = row[atToken]
	if e.takesSecret() {
		m = row[atSecret]
	}
	if e == EndpointTicket && m.class == ClassPermission {
		m.advice = adviceTicket
	}
	m.advice = strings.ReplaceAll(m.advice, callerIP, nameIPs(errmsg))
	return m, true
}
