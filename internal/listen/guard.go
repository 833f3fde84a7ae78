package listen

import (
	"net"
	"net/http"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/loopback"
)

// maxBody limits the body of a request. The largest is a reply that the simulation is told to give.
const maxBody = 1 << 20

// headers are in every answer. They tell a browser to run nothing of a page, not to show it inside of another page,
// not to guess its type, to store nothing, and to give it to no other site.
var headers = map[string]string{
	"Content-Security-Policy":      "default-src 'none'; frame-ancestors 'none'",
	"X-Frame-Options":              "DENY",
	"X-Content-Type-Options":       "nosniff",
	"Cache-Control":                "no-store",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Resource-Policy": "same-origin",
}

// Guard returns a handler for pages that a server shows on l, which was opened for addr (host:port).
//
// If l is on the loopback, a request must name the loopback, or the host of addr, in its header Host. Otherwise a web
// site could read the pages through the browser of somebody on this machine: it lets its own name resolve to
// 127.0.0.1, and the browser then takes the pages for pages of that site (DNS rebinding). A request without Host,
// as HTTP/1.0 allows, does not come from a browser.
//
// If l is not on the loopback, every Host is accepted. Whoever can reach the address can read the pages without that
// trick, and monitoring uses names that this process does not know, for example of a Service of Kubernetes.
func Guard(h http.Handler, l net.Listener, addr string) http.Handler {
	local := loopback.Addr(l.Addr().String())
	configured, _, _ := net.SplitHostPort(addr)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		if host := hostname(r.Host); local && host != "" && !loopback.Host(host) && !strings.EqualFold(host, configured) {
			http.Error(w, "this address serves only this machine: ask for http://"+l.Addr().String(),
				http.StatusMisdirectedRequest)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		h.ServeHTTP(w, r)
	})
}

// hostname returns the header Host without its port and without brackets.
func hostname(host string) string {
	if name, port, err := net.SplitHostPort(host); err == nil && strings.Trim(port, "0123456789") == "" {
		return name
	}
	if inner, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(inner, "]") {
		return strings.TrimSuffix(inner, "]")
	}
	return host
}
