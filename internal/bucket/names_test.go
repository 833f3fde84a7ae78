package bucket

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/messages"
)

// Consumers in other languages, and the permissions of NATS users, contain these names literally.
func TestNamesAreThoseOfTheWireContract(t *testing.T) {
	t.Parallel()
	source, destination := Republish("wechat", "wechat")
	want := map[string]string{
		"ledger":           "wechat_ledger",
		"stream":           "KV_wechat",
		"record":           "$KV.wechat.wx1.access_token",
		"account":          "$KV.wechat.wx1.*",
		"all":              "$KV.wechat.*.*",
		"lease":            "$KV.wechat.lease.wx1.access_token",
		"leases":           "$KV.wechat.lease.*.*",
		"republished from": "$KV.wechat.*.*",
		"republished to":   "wechat.published.{{wildcard(1)}}.{{wildcard(2)}}",
		"published prefix": "wechat.published.",
		"stream API":       "$JS.API.STREAM.INFO.KV_wechat",
		"consumer API":     "$JS.API.CONSUMER.CREATE.KV_wechat",
		"direct get API":   "$JS.API.DIRECT.GET.KV_wechat.$KV.wechat.wx1.access_token",
	}
	record := messages.Key("wx1", messages.AccessToken)
	got := map[string]string{
		"ledger":           LedgerOf("wechat"),
		"stream":           Stream("wechat"),
		"record":           Subject("wechat", record),
		"account":          Subject("wechat", AccountKeys("wx1")),
		"all":              Subject("wechat", AllKeys),
		"lease":            Subject("wechat", LeaseKey("wx1", messages.AccessToken)),
		"leases":           Subject("wechat", AllLeases),
		"republished from": source,
		"republished to":   destination,
		"published prefix": publishedPrefix("wechat"),
		"stream API":       StreamAPI("INFO", "wechat"),
		"consumer API":     ConsumerAPI("CREATE", "wechat"),
		"direct get API":   DirectGetAPI("wechat", record),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDomainIsAPartOfWhatReachesJetStream(t *testing.T) {
	t.Parallel()
	for subject, want := range map[string]string{
		InfoAPI:                     "$JS.hub.API.INFO",
		StreamAPI("MSG.GET", "b"):   "$JS.hub.API.STREAM.MSG.GET.KV_b",
		DirectGetAPI("b", "wx1.*"):  "$JS.hub.API.DIRECT.GET.KV_b.$KV.b.wx1.*",
		Subject("b", "lease.wx1.*"): "$JS.hub.API.$KV.b.lease.wx1.*",
		"wechat.credential.get.wx1": "wechat.credential.get.wx1",
		"$SRV.PING":                 "$SRV.PING",
		"$JS.other.API.INFO":        "$JS.other.API.INFO",
	} {
		got := InDomain("hub", subject)
		if got != want || WithoutDomain("hub", got) != subject || InDomain("", subject) != subject ||
			WithoutDomain("", got) != got {
			t.Errorf("%s: in the domain %s, want %s; and back %s", subject, got, want, WithoutDomain("hub", got))
		}
	}
}
