// Package tokenserver is what teams write if they write it themselves: one process that keeps the access_token of an
// account, and gives it to services over HTTP. It is written as well as that can be done on one page. It renews ahead,
// retries each second, keeps serving the old token while WeChat fails, coalesces reports of a dead token, and asks
// WeChat before it believes one.
package tokenserver
