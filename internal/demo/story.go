package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// The sample of WeChat's page of tickettocode. The simulation knows it for every account.
const (
	sampleOpenID     = "oiV2luCau8Cx0TMOy9lvZSLqRcKc"
	sampleCodeTicket = "6cb4bc95e1f1abc97034cbe8fd484989"
	sampleCode       = "8"
)

// keys are the credentials that the worker keeps.
var keys = []string{
	messages.Key(stableID, messages.AccessToken), messages.Key(stableID, messages.JSAPITicket),
	messages.Key(stableID, messages.WXCardTicket), messages.Key(classicID, messages.AccessToken),
}

// killEvery is the least time between two kills. A worker makes one reported refresh a minute, so a token that
// is killed sooner could not be healed at once.
const killEvery = 75 * time.Second

// story makes things happen, and observes what happens.
type story struct {
	printer
	cfg    Config
	sim    *wechattest.Simulator
	client *messages.Client

	mu      sync.Mutex
	changed chan struct{}                  // closed at the next change of the fields below
	current map[string]messages.Credential // by messages.Key
	progress
}

// progress counts what has happened. A step has happened if its number is not zero.
type progress struct {
	refreshed                  map[string]int // by source, while WeChat still accepted the old value
	resolves, refusals         int
	kills, conflicts, failures int
	heals                      []time.Duration // from each kill to the answer
}

func newStory(cfg Config, sim *wechattest.Simulator) *story {
	return &story{
		printer: printer{out: cfg.Out, color: cfg.Color}, cfg: cfg, sim: sim,
		changed: make(chan struct{}), current: make(map[string]messages.Credential),
		progress: progress{refreshed: make(map[string]int)},
	}
}

// update changes the state of the story, and wakes every await.
func (s *story) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

// await blocks until cond is true of the state of the story. It returns false if ctx ends before.
func (s *story) await(ctx context.Context, cond func() bool) bool {
	for {
		s.mu.Lock()
		ok, changed := cond(), s.changed
		s.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// pause waits for d. It returns false if ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// play makes the steps happen, until ctx ends. Steps that happen without it are printed by onChange and
// onEvent.
func (s *story) play(ctx context.Context) {
	if !s.await(ctx, func() bool { return len(s.current) == len(keys) }) {
		return
	}
	s.resolve(ctx, stableID)
	if !pause(ctx, s.cfg.Life/6) {
		return
	}
	s.killAndHeal(ctx)
	last := time.Now()
	appids := [...]string{stableID, classicID}
	for n := 0; pause(ctx, s.cfg.Life/3); n++ {
		s.resolve(ctx, appids[n%len(appids)])
		// If the demo ends by itself, one kill is enough.
		if s.cfg.For == 0 && time.Since(last) > max(killEvery, 3*s.cfg.Life/2) {
			s.killAndHeal(ctx)
			last = time.Now()
		}
	}
}

// missing returns the steps that have not happened.
func (s *story) missing() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var steps []string
	for _, k := range keys {
		if _, ok := s.current[k]; !ok {
			steps = append(steps, wordPublished+" ("+k+")")
		}
	}
	for _, source := range []string{messages.SourceStableToken, messages.SourceToken} {
		if s.refreshed[source] == 0 {
			steps = append(steps, wordRefreshed+" (a token from the interface "+source+")")
		}
	}
	if s.resolves == 0 {
		steps = append(steps, wordResolved+" (the code_ticket of the sample)")
	}
	if len(s.heals) == 0 {
		steps = append(steps, wordHealed+" (a token that another system killed)")
	}
	return steps
}

// onChange prints a change of the bucket. The Reader calls it once at a time.
func (s *story) onChange(c kv.Change) {
	if c.AppID == "" {
		return // the start or the end of a snapshot
	}
	key := messages.Key(c.AppID, c.Kind)
	s.mu.Lock()
	old, known := s.current[key]
	s.mu.Unlock()
	if c.Record == nil {
		if known && !old.Valid(time.Now()) {
			s.printLine(wordRemoved, "%s: the record has expired, and NATS has removed it", key)
		}
		return
	}
	now := *c.Record
	if known && now.Generation <= old.Generation {
		return // the same ticket with a later end
	}
	refreshed := known && s.isAccepted(old)
	what := fmt.Sprintf("%s %s generation %d", key, mask(now.Value), now.Generation)
	switch {
	case !known:
		s.printLine(wordPublished, "%s, valid for %s, next refresh in %s",
			what, span(now.Life()), span(time.Until(now.RefreshAt)))
	case refreshed:
		s.printLine(wordRefreshed, "%s; WeChat accepts the old value for %s more", what, span(s.acceptedFor(old, now)))
	default:
		s.printLine(wordPublished, "%s, in place of %s, which is dead", what, mask(old.Value))
	}
	s.update(func() {
		s.current[key] = now
		if refreshed {
			s.refreshed[now.Source]++
		}
	})
}

// isAccepted reports whether WeChat accepts a credential now.
func (s *story) isAccepted(c messages.Credential) bool {
	return s.sim.Validity(c.AppID, string(c.Kind), c.Value) == wechattest.Valid
}

// acceptedFor is how long WeChat still accepts a value after it has issued a new one: a classic token for the
// overlap, a stable token until its own end, a ticket until the overlap after its end.
func (s *story) acceptedFor(old, now messages.Credential) time.Duration {
	end := old.ExpiresAt
	switch overlap := overlapOf(s.cfg.Life); now.Source {
	case messages.SourceToken:
		if short := now.ObtainedAt.Add(overlap); short.Before(end) {
			end = short
		}
	case messages.SourceGetTicket:
		end = old.ObtainedAt.Add(ticketLives*s.cfg.Life + overlap)
	}
	return time.Until(end)
}

// subscribe subscribes to the events of the workers.
func (s *story) subscribe(nc *nats.Conn) error {
	_, err := nc.Subscribe(messages.EventSubject(messages.DefaultPrefix, "*", "*", "*"), func(m *nats.Msg) {
		var e messages.Event
		if err := json.Unmarshal(m.Data, &e); err == nil {
			s.onEvent(e)
		}
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		return fmt.Errorf("demo: subscribe to the events: %w", err)
	}
	return nil
}

// onEvent prints an event, except the event of a refresh, which onChange prints.
func (s *story) onEvent(e messages.Event) {
	key := messages.Key(e.AppID, e.Kind)
	switch e.Event {
	case messages.EventThrottled:
		s.printLine(wordConflict, "%s generation %d: %s, until %s. Advice: %s", key, e.Generation, e.Message,
			e.RetryAt.Local().Format(time.TimeOnly), e.Advice)
	case messages.EventConflict:
		s.printLine(wordConflict, "%s generation %d: %s. Advice: %s", key, e.Generation, e.Message, e.Advice)
		s.update(func() { s.conflicts++ })
	case messages.EventFailed:
		advice := ""
		if e.Advice != "" {
			advice = ". Advice: " + e.Advice
		}
		s.printLine(wordFailed, "%s, attempt %d: %s%s", key, e.Attempts, e.Message, advice)
		s.update(func() { s.failures++ })
	case messages.EventRecovered:
		s.printLine(wordRecovered, "%s after %s", key, count(e.Attempts, "failed attempt"))
	case messages.EventExpired:
		s.printLine(wordExpired, "%s generation %d: consumers get no value until a refresh succeeds", key, e.Generation)
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// request resolves the sample through NATS, and counts the result.
func (s *story) request(ctx context.Context, appid string) (took time.Duration, err error) {
	began := time.Now()
	raw, err := s.client.ResolveCode(ctx, messages.ResolveCodeRequest{
		AppID: appid, OpenID: sampleOpenID, CodeTicket: sampleCodeTicket,
	})
	took = time.Since(began)
	if err == nil {
		var c messages.Code
		if err = json.Unmarshal(raw, &c); err == nil && c.Code != sampleCode {
			err = fmt.Errorf("the code is %q, not the sample's %q", c.Code, sampleCode)
		}
	}
	s.update(func() {
		switch {
		case err == nil:
			s.resolves++
		case ctx.Err() == nil:
			s.refusals++
		}
	})
	return took, err
}

// resolve resolves the sample, and prints the answer.
func (s *story) resolve(ctx context.Context, appid string) {
	switch took, err := s.request(ctx, appid); {
	case err == nil:
		s.printLine(wordResolved, "code_ticket %s of %s: code %s, in %s",
			mask(sampleCodeTicket), appid, sampleCode, span(took))
	case ctx.Err() == nil:
		s.printRefusal(appid, err)
	}
}

func (s *story) printRefusal(appid string, err error) {
	s.printLine(wordRefused, "code_ticket %s of %s: %v", mask(sampleCodeTicket), appid, err)
}

// killAndHeal lets another system kill the classic token, and shows that the next resolve heals it.
func (s *story) killAndHeal(ctx context.Context) {
	const appid = classicID
	key := messages.Key(appid, messages.AccessToken)
	// A planned refresh at the same time would hide what heals the token.
	if !s.await(ctx, func() bool { return time.Until(s.current[key].RefreshAt) > s.cfg.Life/6 }) {
		return
	}
	s.mu.Lock()
	victim, conflicts := s.current[key], s.conflicts
	s.mu.Unlock()
	// WeChat accepts the last two tokens, so it takes two new ones to kill the victim.
	for n := 0; n < 2 && s.isAccepted(victim); n++ {
		if _, err := s.sim.ForeignRefresh(appid, messages.SourceToken); err != nil {
			s.printLine(wordRefused, "another system: %v", err)
			return
		}
	}
	began := time.Now()
	s.update(func() { s.kills++ })
	s.printLine(wordKilled, "%s %s generation %d by another system, %s before its end",
		key, mask(victim.Value), victim.Generation, span(time.Until(victim.ExpiresAt)))

	isReplaced := func() bool { return s.current[key].Generation > victim.Generation }
	how := "a resolve got 40001, then generation %d, then its code"
	for {
		_, err := s.request(ctx, appid)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		s.printRefusal(appid, err)
		// The user may have injected a fault, or reported the token just before. A planned refresh may then
		// come before the next report that the worker allows.
		how = "resolves get their code again, with generation %d"
		waiting, cancel := context.WithTimeout(ctx, retryAfter(err))
		replaced := s.await(waiting, isReplaced)
		cancel()
		if replaced && !pause(ctx, time.Second) || ctx.Err() != nil {
			return
		}
	}
	healed := time.Since(began)
	// The answer may arrive before the event of the conflict and the new record, and is printed after them.
	// There is no event if the user has reported the token first.
	soon, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s.await(soon, func() bool { return isReplaced() && s.conflicts > conflicts })
	if !s.await(ctx, isReplaced) {
		return
	}
	s.mu.Lock()
	generation := s.current[key].Generation
	s.mu.Unlock()
	s.update(func() { s.heals = append(s.heals, healed) })
	s.printLine(wordHealed, "%s after %s: "+how, key, span(healed), generation)
}

// retryAfter is how long to wait before a refused resolve is tried again.
func retryAfter(err error) time.Duration {
	wait := time.Second
	if refusal, ok := errors.AsType[*messages.Error](err); ok {
		wait = max(wait, refusal.RetryAfter())
	}
	return wait
}
