package kv

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// instant is a base that answers at once, so that a benchmark measures only the Transport itself.
type instant struct{ body string }

func (i instant) RoundTrip(req *http.Request) (*http.Response, error) {
	return answered(req, i.body), nil
}

// typical is an answer of tickettocode.
const typical = `{"errcode":0,"errmsg":"ok","code":"012345678","application_id":12345,"isv_application_id":"54321",` +
	`"activity_name":"name","product_brand":"brand","product_title":"title","product_code":"code",` +
	`"wxa_appid":"wx0123456789abcdef","wxa_path":"pages/index","code_start":0,"code_end":200}`

// BenchmarkTransport compares a call through a Transport with the same call through http.DefaultTransport with
// the token in its URL. The calls alternate. The metric x is the time of the first divided by the time of the
// second.
func BenchmarkTransport(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("access_token") == "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, typical)
	}))
	defer srv.Close()
	f := newTransportFixture(b, refreshed)
	token := f.publish(1)
	f.Base, f.Hosts = nil, []string{strings.TrimPrefix(srv.URL, "http://")}
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	ways := [2]struct {
		http.RoundTripper
		url string
	}{{http.DefaultTransport, srv.URL + "/x?a=b&access_token=" + token}, {f.Transport, srv.URL + "/x?a=b"}}
	var spent [2]time.Duration
	callBoth := func(first int) {
		for i := range ways {
			i ^= first // so that neither is always the second one
			began := time.Now()
			roundTrip(b, ways[i], ways[i].url)
			spent[i] += time.Since(began)
		}
	}
	for range 500 {
		callBoth(0)
	}
	spent = [2]time.Duration{}
	n := 0
	for b.Loop() {
		callBoth(n & 1)
		n++
	}
	ns := func(i int) float64 { return float64(spent[i].Nanoseconds()) / float64(b.N) }
	b.ReportMetric(ns(0), "default-ns/op")
	b.ReportMetric(ns(1), "transport-ns/op")
	b.ReportMetric(ns(1)/ns(0), "x")
	for i, name := range []string{"default-allocs", "transport-allocs"} {
		b.ReportMetric(testing.AllocsPerRun(1000, func() { roundTrip(b, ways[i], ways[i].url) }), name)
	}
}

// BenchmarkTransportAlone measures the Transport's own part of a call, with a base that answers at once.
func BenchmarkTransportAlone(b *testing.B) {
	list := `{"total":100,"data":{"openid":["` + strings.Repeat(`oiV2luCau8Cx0TMOy9lvZSLqRcKc","`, 500) + `"]}}`
	picture := strings.Repeat("\x89PNG", 64<<10)
	for name, body := range map[string]string{"typical": typical, "15KiB": list, "picture": picture} {
		b.Run(name, func(b *testing.B) {
			f := newTransportFixture(b, refreshed)
			f.publish(1)
			f.Base = instant{body}
			b.ReportAllocs()
			for b.Loop() {
				roundTrip(b, f.Transport, apiURL)
			}
		})
	}
}

func roundTrip(b *testing.B, t http.RoundTripper, url string) {
	b.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		b.Fatal(err)
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		b.Fatal(resp.StatusCode, err)
	}
	resp.Body.Close()
}
