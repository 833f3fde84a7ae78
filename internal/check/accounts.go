package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// examined is what was found of one account.
type examined struct {
	asked    bool // WeChat was; not where ctx ended before
	upstream Finding
	others   []Finding // signs of another system
}

// accounts asks WeChat about each account, and compares what it says with what the fleet has.
func (r *run) accounts(ctx context.Context) {
	clocks := &clocks{now: r.Now}
	cfg := r.WeChat
	cfg.OnCall = clocks.observe
	client, err := wechat.New(cfg)
	if err != nil {
		r.say(Fail, Account, err.Error(), "")
		return
	}
	defer client.Close()
	e := &examiner{run: r, client: client, pace: &pace{every: time.Duration(float64(time.Second) / r.CallsPerSecond)}}
	results := make([]examined, len(r.Accounts))
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(r.Concurrency, len(r.Accounts)) {
		wg.Go(func() {
			for i := range next {
				results[i] = e.examine(ctx, r.Accounts[i])
			}
		})
	}
	for i := range r.Accounts {
		next <- i
	}
	close(next)
	wg.Wait()
	r.tell(results, clocks)
}

func (r *run) tell(results []examined, clocks *clocks) {
	unasked := 0
	var others []Finding
	for _, x := range results {
		if !x.asked {
			unasked++
			continue
		}
		r.found = append(r.found, x.upstream)
		others = append(others, x.others...)
	}
	if unasked > 0 {
		r.say(Warn, Account, fmt.Sprintf("the time was over before WeChat had answered for %s", count(unasked, "account")),
			"give it more with --timeout, or choose accounts with --appid")
	}
	r.found = append(r.found, clocks.finding())
	switch {
	case len(others) > 0:
		r.found = append(r.found, others...)
	case !r.readable:
		r.say(OK, OtherSystem, "whether another system refreshes the same accounts cannot be seen: there is no record of a worker to compare with", "")
	case unasked < len(results):
		r.say(OK, OtherSystem, "no sign of another system that refreshes the same accounts", "")
	}
}

// examiner makes the calls of WeChat.
type examiner struct {
	*run
	client *wechat.Client
	pace   *pace
}

func (e *examiner) examine(ctx context.Context, a worker.Account) examined {
	x := examined{upstream: Finding{Check: Account, AppID: a.AppID, Level: OK}}
	if e.pace.wait(ctx) != nil {
		return x
	}
	var before *messages.Credential
	if e.readable {
		before = e.record(ctx, a)
	}
	// The normal mode, which kills nothing. What it returns is published by nobody: that is for the holder of the lease.
	issued, err := e.client.StableToken(ctx, a.AppID, a.Secret.Reveal(), false)
	if err != nil && ctx.Err() != nil {
		return x
	}
	x.asked = true
	if err != nil {
		x.upstream.Level, x.upstream.What, x.upstream.Advice = e.refusal(a, err)
	} else {
		x.upstream.What = label(a) + ": WeChat takes the AppSecret, and calls from this machine"
	}
	if !e.readable {
		return x
	}
	what := ""
	switch {
	case before == nil || err != nil && isTransport(err):
	case before.Source == messages.SourceToken && a.TokenAPI == messages.SourceToken:
		what = e.killed(ctx, a, *before)
	case before.Source == messages.SourceStableToken && a.TokenAPI != messages.SourceToken && err == nil:
		what = e.replaced(ctx, a, *before, issued)
	}
	if what != "" {
		x.others = append(x.others, other(Fail, a, what))
	}
	if what := e.remembered(ctx, a); what != "" {
		x.others = append(x.others, other(Warn, a, what))
	}
	return x
}

func other(level Level, a worker.Account, what string) Finding {
	return Finding{Check: OtherSystem, Level: level, AppID: a.AppID, What: label(a) + ": " + what, Advice: worker.AdviceConflict(a.TokenAPI)}
}

func label(a worker.Account) string {
	if a.Name == "" {
		return a.AppID
	}
	return a.AppID + " (" + a.Name + ")"
}

// record is the living access_token of the bucket, or nil.
func (e *examiner) record(ctx context.Context, a worker.Account) *messages.Credential {
	c, err := e.store.Get(ctx, a.AppID, messages.AccessToken)
	if err != nil || !c.Valid(e.Now()) {
		return nil
	}
	return &c
}

// still says whether the bucket has what it had before WeChat was asked: no worker has just renewed it.
func (e *examiner) still(ctx context.Context, a worker.Account, before messages.Credential) bool {
	now := e.record(ctx, a)
	return now != nil && now.Value == before.Value
}

// killed asks whether WeChat takes the classic token of the bucket, and says what that means.
func (e *examiner) killed(ctx context.Context, a worker.Account, c messages.Credential) string {
	if e.pace.wait(ctx) != nil {
		return ""
	}
	_, err := e.client.APIDomainIP(ctx, c.Value)
	var we *wechat.Error
	// About to expire, a difference of clocks explains it.
	if !errors.As(err, &we) || we.Class != wechat.ClassDeadToken || c.ExpiresAt.Sub(e.Now()) < c.Life()/10 || !e.still(ctx, a, c) {
		return ""
	}
	return "WeChat refuses the token of the bucket long before its end, and no worker replaced it; wxkeeper refresh --appid " + a.AppID + " has it renewed"
}

// replaced compares the stable token of the bucket with the one that WeChat gives out. Before the last five minutes of its
// life they are the same (wechat-api.md 1.2).
func (e *examiner) replaced(ctx context.Context, a worker.Account, c messages.Credential, issued wechat.Issued) string {
	last := min(5*time.Minute, c.Life()/3) + clockWarn
	if issued.Value == c.Value || c.ExpiresAt.Sub(e.Now()) <= last || !e.still(ctx, a, c) {
		return ""
	}
	return "WeChat gives out another stable token than that of the bucket, whose end is not near: it was replaced by force"
}

// remembered is what the fleet has written down in the last day.
func (e *examiner) remembered(ctx context.Context, a worker.Account) string {
	l, err := e.store.Ledger(ctx, a.AppID, messages.AccessToken)
	const day = 24 * time.Hour
	switch now := e.Now(); {
	case err != nil:
		return ""
	case l.Conflicts > 0 && now.Sub(l.LastConflict) < day:
		return fmt.Sprintf("workers have met tokens that were dead long before their end, %s so far, the last at %s",
			times(l.Conflicts), l.LastConflict.UTC().Format(time.RFC3339))
	case l.HardForced > 0 && now.Sub(l.LastForced) < day:
		return fmt.Sprintf("workers had to force a new stable token %s, the last at %s: WeChat refused the one it gave out",
			times(l.HardForced), l.LastForced.UTC().Format(time.RFC3339))
	}
	return ""
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func isTransport(err error) bool {
	var we *wechat.Error
	return errors.As(err, &we) && we.Class == wechat.ClassTransport
}

// refusal says how bad it is that WeChat did not issue a token, and what to do.
func (e *examiner) refusal(a worker.Account, err error) (level Level, what, advice string) {
	level, what = Fail, label(a)+": "+err.Error()
	var we *wechat.Error
	if !errors.As(err, &we) {
		return level, what, ""
	}
	advice = we.Advice
	switch we.Class {
	case wechat.ClassBusy, wechat.ClassMinuteQuota:
		level = Warn // it passes by itself
		if advice == "" {
			advice = "check again in a minute"
		}
	case wechat.ClassTransport:
		advice = unreachable(we)
	case wechat.ClassServer, wechat.ClassBroken:
		if advice == "" {
			advice = "this is no answer of WeChat's documents: look at WECHAT_API_URL, and for a proxy on the way"
		}
	}
	return level, what, advice
}

// unreachable says where to look when no usable answer came.
func unreachable(e *wechat.Error) string {
	reset := []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH}
	switch {
	case errors.Is(e, wechat.ErrLookup):
		return "the name of the host is not found: look at the DNS of this machine, and at WECHAT_API_URL"
	case errors.Is(e, wechat.ErrTLS):
		return "the host answers without a certificate that this machine trusts: look for a proxy that opens TLS, at the authorities " +
			"installed here (ca-certificates), and at the clock"
	case errors.Is(e, context.DeadlineExceeded):
		return "nothing answers in time: look for a firewall that lets nothing out, at HTTPS_PROXY, and at WECHAT_HTTP_TIMEOUT"
	case slices.ContainsFunc(reset, func(errno error) bool { return errors.Is(e, errno) }):
		return "the connection is refused on the way: look for a firewall, at HTTPS_PROXY, and at WECHAT_API_URL"
	}
	return "look at the way to WeChat: DNS, firewall, HTTPS_PROXY, WECHAT_API_URL"
}

// pace lets calls pass one after another, at least every apart.
type pace struct {
	every time.Duration

	mu   sync.Mutex
	next time.Time
}

// wait blocks until it is the caller's turn, or returns why it is not.
func (p *pace) wait(ctx context.Context) error {
	p.mu.Lock()
	now := time.Now()
	at := p.next
	if at.Before(now) {
		at = now
	}
	p.next = at.Add(p.every)
	p.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(at.Sub(now)):
		return ctx.Err()
	}
}
