// Package wechattest simulates the part of the WeChat server API that wxkeeper uses: what WeChat issues, how
// long it lives, what ends it, and what WeChat refuses with which errcode. The simulation behaves like WeChat
// and expects no sequence of calls. It needs only the standard library.
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
//	// configure the client with wx.URL, then
//	wx.Inject(wechattest.Fault{Endpoint: "token", Errcode: -1, Times: 3})
//	wx.Minted("wx1", "token")
//
// As a process, serve [New] on one listener and [Simulator.Control] on another.
//
// # What is simulated
//
// The source of each rule is in docs/wechat-api.md, with the marks documented, reported and inferred.
//
//   - Classic token: each success issues a new token (documented). The previous
//     token stays valid for Config.Overlap (documented), the token before it ends
//     at once (inferred: WeChat promises only "old and new").
//   - Stable token: normal mode repeats the token with its remaining life. In the
//     last Overlap of a life it issues a new token, and the old token keeps its own
//     end (documented). Forced mode issues a new token; the previous token stays
//     valid for at most Overlap, the token before it ends at once (documented: the
//     leak procedure is two forced calls). A forced call within ForceGap of the
//     last one does not refresh (documented); it is answered as a normal call
//     (inferred). Stable and classic tokens never affect each other (documented).
//   - Ticket: the same value for its whole life, for every token, with a constant
//     expires_in. The old ticket stays valid for Overlap after its life (reported).
//   - code_ticket: AddCode registers what a code_ticket resolves to; the sample of
//     WeChat's page is registered for every account. Any other code_ticket is
//     refused with 40097 (reported). A code_ticket can be resolved any number of
//     times: whether WeChat limits that is not known.
//   - Token at an endpoint that takes one: 41001 if it is missing, 40014 if it was
//     never issued, 40001 if it ended before its life was over, 42001 if its life
//     is over (documented).
//   - Quotas: 45009 until the day ends in Asia/Shanghai, 45011 until the minute of
//     the clock ends (inferred). Only calls with valid credentials count.
//   - A refusal is HTTP 200 with errcode and errmsg, and the errmsg ends in a rid
//     (documented). The Content-Type is always text/plain (reported).
//
// Checks run in this order: method, parameters, AppID, AppSecret or token, IP white list, quota, arguments.
// WeChat's own order is not documented.
//
// # The control API
//
// Requests and replies are JSON. A wrong request is answered with 400 and {"error":"…"}, an account or value
// that does not exist with 404. Unknown fields are refused, so that a typing error does not pass unnoticed.
//
//	C=http://127.0.0.1:8091
//	curl $C/
//	curl $C/healthz
//	curl $C/accounts
//	curl -d '{"appid":"wx1","secret":"s1"}' $C/accounts
//	curl -X DELETE $C/accounts/wx1
//	curl -d '{"appid":"wx1","secret":"rotated"}' $C/secrets
//	curl -d '{"appid":"wx1","openid":"o1","code_ticket":"t1","reply":{"errcode":0,"code":"012345678"}}' $C/codes
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
// A fault has the fields of [Fault], the reply of /calls those of [Snapshot]. /judge returns a [Validity] in
// its field "verdict".
//
// The control API has no authentication: anyone who can connect to it controls the simulation. Secrets and
// tokens of a simulation protect nothing. It refuses what a web site makes a browser send, with 403.
package wechattest
