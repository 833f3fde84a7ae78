package kv_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/kv/kvtest"
	"github.com/wxkeeper/wxkeeper/messages"
)

func TestReaderRefusesAnAppSecretWithoutShowingIt(t *testing.T) {
	t.Parallel()
	const secret = "0123456789abcdeffedcba9876543210"
	_, err := kv.NewReader(nil, kv.ReaderConfig{AppIDs: []string{"wx1", secret}})
	if !errors.Is(err, messages.ErrAppSecret) || strings.Contains(err.Error(), secret[:8]) {
		t.Errorf("NewReader: %v", err)
	}
	bucket := kvtest.NewBucket()
	defer bucket.Close()
	r := bucket.Reader(kv.ReaderConfig{})
	_, err = r.Get(secret, messages.AccessToken)
	if !errors.Is(err, kv.ErrNotFound) || !strings.Contains(err.Error(), "looks like an AppSecret") ||
		strings.Contains(err.Error(), secret[:8]) {
		t.Errorf("Get: %v", err)
	}
	_, err = r.Handle(secret, messages.AccessToken).Value()
	if !errors.Is(err, kv.ErrNotFound) || strings.Contains(err.Error(), secret[:8]) {
		t.Errorf("Value: %v", err)
	}
}
