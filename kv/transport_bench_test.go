package kv

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// nowhere answers at once: what is left of a benchmark is the Transport's own part.
type nowhere struct{ body string }

func (n nowhere) RoundTrip(req *http.Request) (*http.Response, error) {
	return answered(req, n.body), nil
}

// typical is an answer of tickettocode.
const typical = `{"errcode":0,"errmsg":"ok","code":"012345678","application_id":12345,"isv_application_id":"54321","activity_name":"name",` +
	`"product_brand":"brand","product_title":"title","product_code":"code","wxa_appid":"wx0123456789abcdef","wxa_path":"pages/index","code_start":0,"code_end":200}`

// BenchmarkTransport: one call through a Transport beside the same call, its token in its URL, through
// http.DefaultTransport, in turns. The metric x is the first over the second.
func BenchmarkTransport(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("access_token") == "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, typical)
	}))
	defer srv.Close()
	s := newScene(b, refreshed)
	token := s.apply(1)
	s.Base, s.Hosts = nil, []string{strings.TrimPrefix(srv.URL, "http://")}
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	ways := [2]struct {
		http.RoundTripper
		url string
	}{{http.DefaultTransport, srv.URL + "/x?a=b&access_token=" + token}, {s.Transport, srv.URL + "/x?a=b"}}
	var spent [2]time.Duration
	turn := func(first int) {
		for i := range ways {
			i ^= first // neither always comes after the other
			began := time.Now()
			roundTrip(b, ways[i], ways[i].url)
			spent[i] += time.Since(began)
		}
	}
	for range 500 {
		turn(0)
	}
	spent = [2]time.Duration{}
	n := 0
	for b.Loop() {
		turn(n & 1)
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

// BenchmarkTransportAlone is the Transport's own part of a call, beside a base that answers at once.
func BenchmarkTransportAlone(b *testing.B) {
	list := `{"total":100,"data":{"openid":["` + strings.Repeat(`oiV2luCau8Cx0TMOy9lvZSLqRcKc","`, 500) + `"]}}`
	for name, body := range map[string]string{"typical": typical, "15KiB": list, "picture": strings.Repeat("\x89PNG", 64<<10)} {
		b.Run(name, func(b *testing.B) {
			s := newScene(b, refreshed)
			s.apply(1)
			s.Base = nowhere{body}
			b.ReportAllocs()
			for b.Loop() {
				roundTrip(b, s.Transport, apiURL)
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
