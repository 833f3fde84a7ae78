package wechat

import (
	"encoding/json"
	"testing"
)

// The words are stored in the ledger and are metric labels, so they are part of the contract.
func TestClassWordsAreTheContract(t *testing.T) {
	t.Parallel()
	words := map[Class]string{
		0: "none", ClassBusy: "busy", ClassTransport: "transport", ClassServer: "server", ClassBroken: "broken",
		ClassDeadToken: "dead_token", ClassDailyQuota: "daily_quota", ClassMinuteQuota: "minute_quota",
		ClassAccount: "account", ClassPermission: "permission", ClassRequest: "request", ClassBug: "bug",
		ClassUnknown: "unknown",
	}
	for c, word := range words {
		equal(t, "String", c.String(), word)
	}
	for _, c := range Classes {
		if words[c] == "" {
			t.Errorf("class %d is not in this test", c)
		}
	}
	equal(t, "number of classes and none", len(words), len(Classes)+1)
	equal(t, "a value that is no class", Class(200).String(), "class(200)")
}

func TestClassIsStoredAsItsWord(t *testing.T) {
	t.Parallel()
	type record struct {
		Class Class `json:"class"`
	}
	for _, c := range append(Classes[:], 0) {
		b, err := json.Marshal(record{c})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "JSON", string(b), `{"class":"`+c.String()+`"}`)
		var got record
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		equal(t, "class read from "+string(b), got.Class, c)
	}
}

// A ledger entry may come from a newer worker with more classes. The entry must stay readable.
func TestUnknownClassWordIsReadAsUnknown(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"of_a_later_version", "class(200)", "Busy", "", "\x00"} {
		c := ClassBusy
		if err := c.UnmarshalText([]byte(word)); err != nil {
			t.Errorf("%q: %v", word, err)
		}
		equal(t, "class of "+word, c, ClassUnknown)
	}
}
