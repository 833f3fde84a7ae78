// Package wechat is the HTTPS client for the part of the WeChat server API that wxkeeper uses, and the table
// of what each errcode means.
//
// A call is one method of [Client]. An attempt is one HTTP request. A call makes one attempt, because a
// second GET /cgi-bin/token issues a second token and ends the first. A call makes a further attempt only if
// the previous one certainly did not reach WeChat: at the next host, or once more at the same host if an idle
// connection turned out to be dead before a byte was written. [Error.Sent] reports whether the last attempt
// may have reached WeChat.
//
// What happens on each failure:
//
//	dial, TLS             not sent; next host at once, within the caller's context
//	timeout, reset        may have been sent; the call fails, the next call goes to the next host
//	HTTP 5xx, 48017       the call fails, the next call goes to the next host
//	HTTP 3xx              not followed, because it would carry credentials to another host; ClassServer
//	other HTTP status     ClassServer, or the class of the errcode if the body has an errcode of the table
//	errcode other than 0  the class in the table of errcodes
//	anything undocumented ClassBroken; a body is never repaired by guess. A raw control character in a string is
//	                      escaped, and a number in a string is the number: nothing is guessed by that
//
// The table of errcodes has two columns, because an errcode means one thing if the request carries the AppSecret
// (token, stable_token) and another if it carries an access_token (getticket, tickettocode, get_api_domain_ip).
//
// One minute after the client left the first host, one call tries that host again; all other calls stay where
// they are.
//
// Only [Issued.Value] and the body that [Client.TicketToCode] returns carry secrets out of this package. Everything
// else is free of AppSecrets, access_tokens, tickets, openids and code_tickets. WeChat's URLs contain secret= and
// access_token=, so an [Error] keeps no *url.Error and no other foreign error: it keeps texts that went through one
// mask. Of an answer that cannot be used it keeps the structure, and no value.
//
// What is known of WeChat, and from where, is in docs/wechat-api.md; comments link to its sections. The samples in
// testdata are from WeChat's own pages.
package wechat
