package bucket

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/messages"
)

func TestDecodedRecordHasTheRevisionOfTheBucket(t *testing.T) {
	t.Parallel()
	want := credential(1, time.Hour)
	got, err := DecodeRecord(encode(t, want), "wx1", messages.AccessToken, 7)
	if err != nil {
		t.Fatal(err)
	}
	want.Revision = 7
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRecordThatIsNotOneOfItsKeyIsInvalid(t *testing.T) {
	t.Parallel()
	otherAccount, otherKind, expired := credential(1, time.Hour), credential(1, time.Hour), credential(1, time.Hour)
	otherAccount.AppID = "wx2"
	otherKind.Kind = messages.JSAPITicket
	expired.ExpiresAt = expired.ObtainedAt
	for name, data := range map[string][]byte{
		"empty":         nil,
		"not JSON":      []byte("{VALUE"),
		"null":          []byte("null"),
		"another type":  []byte(`{"value":["VALUE"]}`),
		"other account": encode(t, otherAccount),
		"other kind":    encode(t, otherKind),
		"no life":       encode(t, expired),
	} {
		_, err := DecodeRecord(data, "wx1", messages.AccessToken, 1)
		if !errors.Is(err, messages.ErrInvalidCredential) {
			t.Errorf("%s: %v, want ErrInvalidCredential", name, err)
			continue
		}
		if strings.Contains(err.Error(), "VALUE") {
			t.Errorf("%s: the error shows the value: %v", name, err)
		}
	}
}
