package embedded

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// After a kill, the server warns that its indexes are outdated. That is harmless, and would be the first line that an
// operator sees.
func TestRebuildOfIndexesIsOneLineOfInformation(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	b := newBridge(slog.New(slog.NewTextHandler(&out, nil)))
	defer b.stop()
	for _, line := range []string{
		"Filestore [KV_wechat] TTL state is outdated; attempting to recover using linear scan (seq 1 to 9)",
		"Filestore [KV_wechat] Stream state outdated, last block has additional entries, will rebuild",
		"Filestore [KV_wechat_ledger] TTL state is outdated; attempting to recover using linear scan (seq 1 to 9)",
	} {
		b.Warnf("%s", line)
	}
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=INFO") {
		t.Errorf("the log has\n%s", got)
	}
	b.Warnf("Filestore [KV_wechat] Stream state checksum did not match")
	if !strings.Contains(out.String(), "level=WARN") {
		t.Error("another warning of the store is not in the log")
	}
}
