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

// The sample of WeChat's page of tickettocode, which the simulation knows for every account.
const (
	sampleOpenID     = "oiV2luCau8Cx0TMOy9lvZSLqRcKc"
	sampleCodeTicket = "6cb4bc95e1f1abc97034cbe8fd484989"
	sampleCode       = "8"
)

// keys are the credentials that the worker keeps.
var keys = []string{
	messages.Key(stableID, messages.AccessToken), messages.Key(stableID, messages.JSAPITicket), messages.Key(stableID, messages.WXCardTicket),
	messages.Key(classicID, messages.AccessToken),
}

// killEvery is the least time between two kills: a worker makes one forced refresh a minute, and a kill that cannot be
// healed at once is another story.
const killEvery = 75 * time.Second

// story is what happens, and what has happened.
type story struct {
	narrator
	cfg    Config
	sim    *wechattest.Simulator
	client *messages.Client

	mu      sync.Mutex
	news    chan struct{}                  // closed at the next change of what follows
	current map[string]messages.Credential // by kv.Key
	past
}

// past is what has happened. A chapter has happened when its number is not zero.
type past struct {
	renewed                    map[string]int // by source
	resolves, refusals         int
	kills, conflicts, failures int
	heals                      []time.Duration // from the kill to the answer
}

func newStory(cfg Config, sim *wechattest.Simulator) *story {
	return &story{
		narrator: narrator{out: cfg.Out, color: cfg.Color}, cfg: cfg, sim: sim,
		news: make(chan struct{}), current: make(map[string]messages.Credential), past: past{renewed: make(map[string]int)},
	}
}

// note changes what is known, and wakes who waits for it.
func (s *story) note(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.news)
	s.news = make(chan struct{})
}

// await blocks until what is known fulfills cond. It is false where ctx ended before.
func (s *story) await(ctx context.Context, cond func() bool) bool {
	for {
		s.mu.Lock()
		ok, news := cond(), s.news
		s.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-news:
		case <-ctx.Done():
			return false
		}
	}
}

// pause is false where ctx ended before d had passed.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// tell makes the story happen, until ctx ends. What only has to be watched is told by changed and happened.
func (s *story) tell(ctx context.Context) {
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
		// One kill is enough for a story with an end.
		if s.cfg.For == 0 && time.Since(last) > max(killEvery, 3*s.cfg.Life/2) {
			s.killAndHeal(ctx)
			last = time.Now()
		}
	}
}

// missing are the chapters that have not happened, with what is missing in them.
func (s *story) missing() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var chapters []string
	for _, k := range keys {
		if _, ok := s.current[k]; !ok {
			chapters = append(chapters, wordPublished+" ("+k+")")
		}
	}
	for _, source := range []string{messages.SourceStableToken, messages.SourceToken} {
		if s.renewed[source] == 0 {
			chapters = append(chapters, wordRenewed+" (a token of "+source+")")
		}
	}
	if s.resolves == 0 {
		chapters = append(chapters, wordResolved+" (the sample's code_ticket)")
	}
	if len(s.heals) == 0 {
		chapters = append(chapters, wordHealed+" (a token that another system killed)")
	}
	return chapters
}

// changed tells of a change of the bucket. The Reader calls it, one call after the other.
func (s *story) changed(c kv.Change) {
	if c.AppID == "" {
		return // a mark of the snapshot
	}
	key := messages.Key(c.AppID, c.Kind)
	s.mu.Lock()
	old, known := s.current[key]
	s.mu.Unlock()
	if c.Record == nil {
		if known && !old.Valid(time.Now()) {
			s.say(wordGone, "%s: its life is over, and the record has removed itself", key)
		}
		return
	}
	now := *c.Record
	if known && now.Generation <= old.Generation {
		return // a ticket that WeChat gives out for longer
	}
	verdict := s.judge(old)
	renewed := known && verdict == wechattest.Valid
	what := fmt.Sprintf("%s %s generation %d", key, mask(now.Value), now.Generation)
	switch {
	case !known:
		s.say(wordPublished, "%s, lives for %s, next look in %s", what, span(now.Life()), span(time.Until(now.RefreshAt)))
	case renewed:
		s.say(wordRenewed, "%s; WeChat takes the old one for %s more", what, span(s.rest(old, now)))
	default:
		s.say(wordPublished, "%s, in place of %s, which is dead", what, mask(old.Value))
	}
	s.note(func() {
		s.current[key] = now
		if renewed {
			s.renewed[now.Source]++
		}
	})
}

// judge is what WeChat would say now of a credential.
func (s *story) judge(c messages.Credential) wechattest.Verdict {
	return s.sim.Judge(c.AppID, string(c.Kind), c.Value)
}

// rest is how long WeChat accepts a value that has just got a successor. A classic token lives on for the overlap, a
// stable one to its own end, a ticket for the overlap after its end.
func (s *story) rest(old, now messages.Credential) time.Duration {
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

// listen subscribes to the events of the workers.
func (s *story) listen(nc *nats.Conn) error {
	_, err := nc.Subscribe(messages.EventSubject(messages.DefaultPrefix, "*", "*", "*"), func(m *nats.Msg) {
		var e messages.Event
		if err := json.Unmarshal(m.Data, &e); err == nil {
			s.happened(e)
		}
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		return fmt.Errorf("demo: subscribing to the events: %w", err)
	}
	return nil
}

// happened tells of an event. That of a refresh is told by changed.
func (s *story) happened(e messages.Event) {
	key := messages.Key(e.AppID, messages.Kind(e.Kind))
	switch e.Event {
	case messages.EventConflict:
		s.say(wordConflict, "%s generation %d: %s. Advice: %s", key, e.Generation, e.Message, e.Advice)
		s.note(func() { s.conflicts++ })
	case messages.EventFailed:
		advice := ""
		if e.Advice != "" {
			advice = ". Advice: " + e.Advice
		}
		s.say(wordFailed, "%s, attempt %d: %s%s", key, e.Attempts, e.Message, advice)
		s.note(func() { s.failures++ })
	case messages.EventRecovered:
		s.say(wordRecovered, "%s, after failed attempts: %d", key, e.Attempts)
	case messages.EventExpired:
		s.say(wordExpired, "%s generation %d: nobody is given it any more", key, e.Generation)
	}
}

// ask resolves the sample through NATS and counts.
func (s *story) ask(ctx context.Context, appid string) (took time.Duration, err error) {
	began := time.Now()
	raw, err := s.client.ResolveCode(ctx, messages.ResolveCodeRequest{AppID: appid, OpenID: sampleOpenID, CodeTicket: sampleCodeTicket})
	took = time.Since(began)
	if err == nil {
		var c messages.Code
		if err = json.Unmarshal(raw, &c); err == nil && c.Code != sampleCode {
			err = fmt.Errorf("the code is %q, not the sample's %q", c.Code, sampleCode)
		}
	}
	s.note(func() {
		switch {
		case err == nil:
			s.resolves++
		case ctx.Err() == nil:
			s.refusals++
		}
	})
	return took, err
}

// resolve asks and tells the answer.
func (s *story) resolve(ctx context.Context, appid string) {
	switch took, err := s.ask(ctx, appid); {
	case err == nil:
		s.say(wordResolved, "code_ticket %s of %s: code %s, in %s", mask(sampleCodeTicket), appid, sampleCode, span(took))
	case ctx.Err() == nil:
		s.say(wordRefused, "code_ticket %s of %s: %v", mask(sampleCodeTicket), appid, err)
	}
}

// killAndHeal lets another system kill the classic token, and shows that the next resolve brings a new one.
func (s *story) killAndHeal(ctx context.Context) {
	const appid = classicID
	key := messages.Key(appid, messages.AccessToken)
	// The renewal of a token that is due anyway would prove nothing.
	if !s.await(ctx, func() bool { return time.Until(s.current[key].RefreshAt) > s.cfg.Life/6 }) {
		return
	}
	s.mu.Lock()
	victim, conflicts := s.current[key], s.conflicts
	s.mu.Unlock()
	// A new token kills the one before the last.
	for n := 0; n < 2 && s.judge(victim) == wechattest.Valid; n++ {
		if _, err := s.sim.ForeignRefresh(appid, messages.SourceToken); err != nil {
			s.say(wordRefused, "the foreign system: %v", err)
			return
		}
	}
	began := time.Now()
	s.note(func() { s.kills++ })
	s.say(wordKilled, "%s %s generation %d by another system, %s before its end",
		key, mask(victim.Value), victim.Generation, span(time.Until(victim.ExpiresAt)))

	grown := func() bool { return s.current[key].Generation > victim.Generation }
	how := "a resolve met 40001, fetched generation %d, got its code"
	for {
		_, err := s.ask(ctx, appid)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		s.say(wordRefused, "code_ticket %s of %s: %v", mask(sampleCodeTicket), appid, err)
		// A fault that somebody has injected, or a refresh that somebody has reported just before. The schedule may be
		// quicker than the next report that is allowed.
		how = "resolves have their code again, with generation %d"
		waiting, cancel := context.WithTimeout(ctx, retryAfter(err))
		renewed := s.await(waiting, grown)
		cancel()
		if renewed && !pause(ctx, time.Second) || ctx.Err() != nil {
			return
		}
	}
	healed := time.Since(began)
	// The answer may overtake what led to it. Where somebody else has reported the token first, no conflict follows.
	soon, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s.await(soon, func() bool { return grown() && s.conflicts > conflicts })
	if !s.await(ctx, grown) {
		return
	}
	s.mu.Lock()
	generation := s.current[key].Generation
	s.mu.Unlock()
	s.note(func() { s.heals = append(s.heals, healed) })
	s.say(wordHealed, "%s in %s: "+how, key, span(healed), generation)
}

// retryAfter is when a refused resolve is worth another try.
func retryAfter(err error) time.Duration {
	var refusal *messages.Error
	if errors.As(err, &refusal) {
		return max(time.Second, time.Duration(refusal.RetryAfterMS)*time.Millisecond)
	}
	return time.Second
}
