// Package wechat is the HTTPS client of the WeChat server API, as far as a keeper of credentials needs it, and the
// table that says what each errcode means for it.
//
// Words: a credential endpoint mints credentials from an AppSecret (token, stable_token) or from an access_token
// (getticket). The endpoint class of the errcode table is another cut: the same errcode means one thing where the
// AppSecret is shown (token, stable_token) and another where an access_token is shown (getticket, tickettocode,
// get_api_domain_ip).
//
// A call is one method of [Client]; an attempt is one HTTP request. A call makes one attempt, because a second GET
// /cgi-bin/token mints a second token and kills the first. It makes another only where the first certainly did not reach
// WeChat: at the next host, or once more at the same host where a kept connection turned out to be dead before anything
// was written. [Error.Sent] tells the caller which of the two it was.
//
// What happens on each failure:
//
//	dial, TLS             not sent; next host at once, within the caller's context
//	timeout, reset        perhaps sent; the call fails, the next call goes to the next host
//	HTTP 5xx, 48017       the call fails, the next call goes to the next host
//	HTTP 3xx              not followed, it would carry credentials elsewhere; ClassServer
//	other HTTP status     ClassServer, or the class of the errcode where the body has one that the table knows
//	errcode other than 0  the class of (endpoint class, errcode) in the table
//	anything undocumented ClassBroken; a body is never repaired by guess
//
// About a minute after it left the first host, one call tries it again, while the others stay where they are.
//
// Nothing that leaves this package other than [Issued.Value] and the body of [Client.TicketToCode] carries an AppSecret,
// access_token, ticket, openid or code_ticket. WeChat's URLs carry secret= and access_token=, so no *url.Error and no
// foreign error is kept: an [Error] holds texts that went through one mask.
//
// Sources, named in the comments: getaccesstoken.txt, getticket.txt and tickettocode.txt are WeChat's own pages, the
// samples of which are in testdata; wechat-api.md is what the wider documentation and the field say.
package wechat
