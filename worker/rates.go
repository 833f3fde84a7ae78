package worker

import (
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
)

const (
	// requestRate is how many requests of one kind a worker answers for one account in a second, in the long run. It is
	// far more than WeChat allows an account to resolve, and a flood beyond it costs no decoding. An account that needs
	// more needs more workers.
	requestRate = 5000
	// requestBurst is how many requests of one kind are answered at once. Ten thousand reports of one dead token are a
	// normal event (docs/architecture.md#numbers-6).
	requestBurst = 10_000
	// requestUnit is the size that counts as one request: decoding costs as much as the request is long. An ordinary
	// request is smaller.
	requestUnit = 1 << 10
)

// rates limits the rate of each account's requests of one kind by a leaky bucket (docs/architecture.md#resolve-8). A
// request beyond it is refused before it is decoded, if its subject names the account: that costs a small part
// of an answer. A worker that keeps one account limits nothing, because there is nobody to protect.
type rates struct {
	accounts *accounts
	every    time.Duration // one request is paid for in it
	burst    int
	began    time.Time

	mu   sync.Mutex
	paid map[string]time.Duration // by AppID: when all requests so far are paid for, since began
}

func newRates(accounts *accounts) *rates {
	return &rates{
		accounts: accounts, every: time.Second / requestRate, burst: requestBurst, began: time.Now(),
		paid: make(map[string]time.Duration),
	}
}

// charge counts a request of size bytes, or returns an error if the account has made too many. appid is an
// account of this worker, or unnamed: the requests whose account is not known before they are decoded share one rate,
// because decoding is what a flood of them costs. Its error is a *messages.Error.
func (r *rates) charge(appid string, size int) error {
	kept := r.accounts.len()
	if kept == 1 {
		return nil
	}
	now := time.Since(r.began)
	r.mu.Lock()
	defer r.mu.Unlock()
	paid := max(r.paid[appid], now) + r.every*time.Duration(1+size/requestUnit)
	if late := paid - now - r.every*time.Duration(r.burst); late > 0 {
		what := "for this account: this worker also answers for other accounts"
		if appid == unnamed {
			what = "that name their account only in their body: name it in the subject"
		}
		return messages.Errorf(messages.Throttled, "more than %d requests a second %s", time.Second/r.every, what).
			After(max(late, time.Millisecond))
	}
	r.paid[appid] = paid
	if len(r.paid) > kept+1 { // more than the accounts and unnamed: accounts were removed
		for id := range r.paid {
			if id != unnamed && r.accounts.get(id) == nil {
				delete(r.paid, id)
			}
		}
	}
	return nil
}
