// Package wechattest simulates the WeChat server API as far as a keeper of
// credentials needs it: what is issued, how long it lives, what kills it, what
// is refused and in which words. It is a fake that behaves, not a mock that
// expects. It needs nothing but the standard library.
//
//	GET  /cgi-bin/token                  classic access_token       endpoint "token"
//	POST /cgi-bin/stable_token           stable access_token        endpoint "stable_token"
//	GET  /cgi-bin/ticket/getticket       jsapi and wx_card ticket   endpoint "getticket"
//	POST /intp/marketcode/tickettocode   code_ticket to code        endpoint "tickettocode"
//	GET  /cgi-bin/get_api_domain_ip      is this token alive?       endpoint "get_api_domain_ip"
//
// In a Go test:
//
//	wx := wechattest.Start(t, wechattest.Config{
//		Accounts: []wechattest.Account{{AppID: "wx1", Secret: "s1"}},
//	})
//	// point the client at wx.URL, then
//	wx.Inject(wechattest.Fault{Endpoint: "token", Errcode: -1, Times: 3})
//	wx.Minted("wx1", "token")
//
// As a process, serve [New] on one listener and [Simulator.Control] on another.
//
// # What is simulated
//
// Sources: [F] WeChat's documentation, [C] reports of developers, [I] our
// inference where neither says anything.
//
//   - Classic token: every success mints a new one [F]. The last one lives on
//     for Config.Overlap [F], the one before it dies at once [I: only "old and
//     new" are promised].
//   - Stable token: the same one with the rest of its life, a new one in its
//     last Overlap, while the old one lives to its own end [F]. Forced: a new
//     one; the last lives on for Overlap at most, the one before dies at once
//     [F: the leak procedure is two forced calls]. A forced call within
//     ForceGap does not refresh [F]: it is answered as a normal one. Stable and
//     classic tokens never touch each other [F].
//   - Ticket: the same value for its whole life, whatever token asks, with a
//     constant expires_in [C]. The old one stays usable for Overlap after its
//     life [C].
//   - code_ticket: AddCode registers what resolves; the sample of WeChat's page
//     is registered for every account. All else is 40097 [C]. A ticket may be
//     resolved any number of times: single use is not documented.
//   - Tokens at the API endpoints: 41001 missing, 40014 never issued, 40001
//     dead before its time, 42001 its life is over [F].
//   - Quotas: 45009 for the day of Asia/Shanghai, 45011 for the minute of the
//     clock [I]. Only calls that identified themselves are counted.
//   - A refusal is HTTP 200 with errcode and errmsg, the latter ending in a rid
//     [F]; everything is sent as text/plain, JSON or not [C].
//
// Checks are made in this order: method, parameters, appid, secret or token, IP
// white list, quota, arguments. WeChat's own order is not documented.
//
// # The control API
//
// JSON in, JSON out. What is wrong with a request is said with 400 and
// {"error":"…"}; 404 is for an account or value that is not there. Unknown
// fields are refused, so that a typing error is not a silent no-op.
//
//	C=http://127.0.0.1:8091
//	curl $C/
//	curl $C/healthz
//	curl $C/accounts
//	curl -d '{"appid":"wx1","secret":"s1"}' $C/accounts
//	curl -X DELETE $C/accounts/wx1
//	curl -d '{"appid":"wx1","secret":"rotated"}' $C/secrets
//	curl -d '{"appid":"wx1","openid":"o1","code_ticket":"t1","reply":{"errcode":0,"errmsg":"ok","code":"012345678"}}' $C/codes
//	curl $C/faults
//	curl -d '{"appid":"wx1","endpoint":"token","times":3,"errcode":-1}' $C/faults
//	curl -d '{"endpoint":"tickettocode","delay_ms":800}' $C/faults
//	curl -d '{"endpoint":"stable_token","hang":true,"after":true,"times":1}' $C/faults
//	curl -X DELETE $C/faults
//	curl -d '{"appid":"wx1","endpoint":"token"}' $C/foreign-refresh
//	curl -d '{"token":"97_…"}' $C/revoke
//	curl -d '{"appid":"wx1","kind":"access_token","value":"97_…"}' $C/judge
//	curl $C/calls
//	curl -X POST $C/calls/reset
//
// The fields of a fault are those of [Fault], of /calls those of [Snapshot].
// The control API has no authentication: whoever reaches it owns the
// simulation. Secrets and tokens of a simulation protect nothing.
package wechattest
