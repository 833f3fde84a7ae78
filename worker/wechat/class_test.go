package wechat

import (
	"encoding/json"
	"testing"
)

func TestClassNames(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range Classes {
		b, err := json.Marshal(c)
		var back Class
		if err != nil || json.Unmarshal(b, &back) != nil || back != c || string(b) != `"`+c.String()+`"` || seen[c.String()] {
			t.Errorf("%d: %s, %v", c, b, err)
		}
		seen[c.String()] = true
	}
	if len(Classes) != len(classNames)-1 || Class(0).String() != "none" || Class(200).String() != "class(200)" {
		t.Error("the names do not fit the classes")
	}
	for c, name := range map[Class]string{ClassBusy: "busy", ClassTransport: "transport", ClassServer: "server", ClassBroken: "broken",
		ClassDeadToken: "dead_token", ClassDailyQuota: "daily_quota", ClassMinuteQuota: "minute_quota", ClassAccount: "account",
		ClassPermission: "permission", ClassRequest: "request", ClassBug: "bug", ClassUnknown: "unknown"} {
		if c.String() != name {
			t.Errorf("%d is %s, want %s", c, c, name)
		}
	}
	var c Class
	if c.UnmarshalText([]byte("nonsense")) == nil {
		t.Error("an unknown name was read")
	}
}
