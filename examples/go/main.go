// The example in Go: a service that uses wxkeeper. It always has the access_token, calls WeChat with it, and has codes
// resolved.
//
//	go run ./examples/go --appid wx-demo-stable --api http://127.0.0.1:…    (beside `wxkeeper demo`, which prints the URL of its WeChat)
//
// Each line of standard input is a command: `OPENID CODE_TICKET` resolves a code, `call` calls WeChat, `call 20` twenty times at
// once.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

const attempt = 5 * time.Second // for one answer of a worker, which answers within 4 s

type service struct {
	appid, prefix, api string
	patience           time.Duration // of a customer, and of a call
	reader             *kv.Reader
	workers            *messages.Client
	http               *http.Client
}

func main() {
	var s service
	server := flag.String("nats", cmp.Or(os.Getenv("NATS_URL"), nats.DefaultURL), "URL of NATS, or a comma-separated list")
	flag.StringVar(&s.appid, "appid", os.Getenv("WECHAT_APPID"), "the account")
	flag.StringVar(&s.prefix, "prefix", messages.DefaultPrefix, "WXKEEPER_SUBJECT_PREFIX of the workers")
	flag.StringVar(&s.api, "api", "https://api.weixin.qq.com", "WeChat")
	patience := flag.Int("patience", 10, "seconds that a customer waits")
	flag.Parse()
	if s.appid == "" {
		fmt.Fprintln(os.Stderr, "which account? --appid wx…")
		os.Exit(2)
	}
	s.patience = time.Duration(*patience) * time.Second
	if err := s.run(context.Background(), *server); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (s *service) run(ctx context.Context, server string) error {
	// nats.go alone fails where no server is there at the start, closes the connection for good after 60 tries to
	// reconnect, and sends late, after a reconnection, what nobody waits for any more.
	options := []nats.Option{
		nats.Name("example"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(500 * time.Millisecond),
		nats.ReconnectBufSize(-1), nats.IgnoreAuthErrorAbort(), nats.PingInterval(10 * time.Second),
	}
	// A user of its own, who may do no more than this program does: wxkeeper permissions direct resolver --appid …
	if user := os.Getenv("NATS_USER"); user != "" {
		options = append(options, nats.UserInfo(user, os.Getenv("NATS_PASSWORD")), nats.CustomInboxPrefix(cmp.Or(os.Getenv("NATS_INBOX_PREFIX"), "_INBOX")))
	}
	nc, err := nats.Connect(server, options...)
	if err != nil {
		return err
	}
	defer nc.Close()
	s.workers = messages.NewClient(nc, s.prefix)
	trouble := "" // is told again and again while NATS is away: say it once
	s.reader, err = kv.NewReader(nc, kv.ReaderConfig{
		AppIDs: []string{s.appid}, SubjectPrefix: s.prefix, Direct: true,
		OnError: func(err error) {
			if err.Error() != trouble {
				trouble = err.Error()
				fmt.Fprintln(os.Stderr, "the bucket cannot be read:", trouble)
			}
		},
	})
	if err != nil {
		return err
	}
	transport := s.reader.Transport(s.appid)
	if api, err := url.Parse(s.api); err == nil {
		transport.Hosts = []string{api.Host} // not needed for WeChat's own
	}
	s.http = &http.Client{Transport: transport}
	go s.reader.Run(ctx) //nolint:errcheck // the error is that of ctx
	go func() {
		for c := range s.reader.Changes(ctx, s.appid) {
			if c.Kind == messages.AccessToken { // six characters tell tokens apart; the whole stands in no log
				fmt.Printf("%s %.6s… generation %d, good until %s\n", c.Kind, c.Value, c.Generation, c.ExpiresAt.Format(time.RFC3339))
			}
		}
	}()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		word, argument, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if word != "call" {
			fmt.Println(s.redeem(ctx, word, argument))
			continue
		}
		times, _ := strconv.Atoi(argument)
		var calls sync.WaitGroup
		for range max(1, times) {
			calls.Go(func() { fmt.Println(s.call(ctx)) })
		}
		calls.Wait()
	}
	return nil
}

// call asks WeChat for its own addresses, as an example of a call. The transport gives it the token; a token that WeChat
// refuses is reported by it, once, and the call repeated with the new one.
func (s *service) call(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.api+"/cgi-bin/get_api_domain_ip", nil)
	if err != nil {
		return "failed: " + err.Error()
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return "failed: " + err.Error()
	}
	defer resp.Body.Close()
	var reply struct{ Errcode int }
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil {
		return "failed: " + err.Error()
	}
	now, err := s.reader.Get(s.appid, messages.AccessToken)
	if err != nil {
		return "failed: " + err.Error()
	}
	return fmt.Sprintf("called WeChat with generation %d: errcode %d", now.Generation, reply.Errcode)
}

// redeem has a code resolved for a customer who waits.
func (s *service) redeem(ctx context.Context, openid, ticket string) string {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	end, _ := ctx.Deadline()
	for wait := 100 * time.Millisecond; ; wait *= 2 {
		code, err := s.resolve(ctx, openid, ticket)
		if err == nil {
			return "code " + code
		}
		again, words, later := true, "no answer, asked again", wait/2+rand.N(wait) // jitter: many are refused at once
		var refusal *messages.Error
		if errors.As(err, &refusal) {
			again, words = reaction(refusal)
			words = string(refusal.Symbol) + ": " + words
			later = max(later, time.Duration(refusal.RetryAfterMS)*time.Millisecond)
		}
		switch {
		case !again:
			return words
		case time.Now().Add(later).After(end):
			return words + ", but not so soon: the customer is asked to come back"
		}
		fmt.Println(words)
		select {
		case <-ctx.Done():
		case <-time.After(later):
		}
	}
}

// resolve gives one attempt as long as a worker may take: an answer that was lost with a connection does not come.
func (s *service) resolve(ctx context.Context, openid, ticket string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	raw, err := s.workers.ResolveCode(ctx, messages.ResolveCodeRequest{AppID: s.appid, OpenID: openid, CodeTicket: ticket})
	if err != nil {
		return "", err
	}
	var answer messages.Code
	err = json.Unmarshal(raw, &answer)
	return answer.Code, err
}

// reaction is what this service does about a refusal: whether it asks again, and what it says. The message of the error is
// for its own people, never for a customer.
func reaction(e *messages.Error) (again bool, words string) {
	switch e.Symbol {
	case messages.Rejected: // errcode 40097: no such code_ticket, or another customer's
		return false, fmt.Sprintf("this code is not good (errcode %d, rid %s)", e.Errcode, e.RID)
	case messages.InvalidRequest, messages.UnknownKind:
		return false, "a fault of this program: " + e.Message
	case messages.UnknownAccount, messages.NotConfigured:
		return false, "the workers must be configured: " + e.Message
	case messages.Overloaded, messages.ShuttingDown:
		return true, "another worker may take it, asked again"
	case messages.Upstream, messages.UpstreamTimeout:
		return true, "WeChat has trouble, asked again"
	case messages.Throttled, messages.QuotaExhausted:
		return true, "asked too often, asked again when it may be"
	case messages.NoCredential:
		return true, "the workers have no token now, asked again; `wxkeeper status` says why"
	default:
		return false, "unknown here: " + e.Message
	}
}
