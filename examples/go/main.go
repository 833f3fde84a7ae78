// The example in Go: a service that uses wxkeeper. It always holds the access_token, calls WeChat with it, and
// resolves codes. examples/node is the same program in JavaScript.
//
// Run it beside `wxkeeper demo`, which prints the URL of its simulated WeChat:
//
//	go run ./examples/go --appid wx-demo-stable --api http://127.0.0.1:…
//
// Each line of standard input is a command: `OPENID CODE_TICKET` resolves a code, `call` calls WeChat, `call 20`
// calls it twenty times at once.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
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

const attemptTimeout = 5 * time.Second // a worker replies within 4 s

type service struct {
	appid, prefix, api string
	patience           time.Duration // of a customer, and of a call
	reader             *kv.Reader
	workers            *messages.Client
	http               *http.Client
}

func main() {
	var s service
	natsURL := cmp.Or(os.Getenv("NATS_URL"), nats.DefaultURL)
	servers := flag.String("nats", natsURL, "URL of NATS, or a comma-separated list")
	flag.StringVar(&s.appid, "appid", os.Getenv("WECHAT_APPID"), "AppID of the account")
	flag.StringVar(&s.prefix, "prefix", messages.DefaultPrefix, "WXKEEPER_SUBJECT_PREFIX of the workers")
	flag.StringVar(&s.api, "api", "https://api.weixin.qq.com", "URL of WeChat")
	patience := flag.Int("patience", 10, "seconds that a customer waits")
	flag.Parse()
	if s.appid == "" {
		fmt.Fprintln(os.Stderr, "name the account: --appid wx…")
		os.Exit(2)
	}
	s.patience = time.Duration(*patience) * time.Second
	if err := s.run(context.Background(), *servers); err != nil {
		show(os.Stderr, err.Error())
		os.Exit(1)
	}
}

func (s *service) run(ctx context.Context, servers string) error {
	// By default nats.go fails if no server is up at the start, closes the connection permanently after 60
	// attempts to reconnect or after the server has refused its user twice, and sends after a reconnection the
	// requests that it buffered, for which no caller waits any more.
	options := []nats.Option{
		nats.Name("example"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(500 * time.Millisecond), nats.ReconnectBufSize(-1), nats.PingInterval(10 * time.Second),
	}
	// Use a NATS user that has only the permissions of this program: wxkeeper permissions requester --appid …
	if user := os.Getenv("NATS_USER"); user != "" {
		inboxes := cmp.Or(os.Getenv("NATS_INBOX_PREFIX"), "_INBOX")
		options = append(options, nats.UserInfo(user, os.Getenv("NATS_PASSWORD")), nats.CustomInboxPrefix(inboxes))
	}
	if token := os.Getenv("NATS_TOKEN"); token != "" { // of the embedded server: eval "$(wxkeeper nats-env)"
		options = append(options, nats.Token(token))
	}
	nc, err := nats.Connect(servers, options...)
	if err != nil {
		return err
	}
	defer nc.Close()
	s.workers = messages.NewClient(nc, s.prefix)
	trouble := "" // the last one: while NATS is down the same error comes again and again
	s.reader, err = kv.NewReader(nc, kv.ReaderConfig{
		AppIDs: []string{s.appid}, SubjectPrefix: s.prefix,
		OnError: func(err error) {
			if err.Error() != trouble {
				trouble = err.Error()
				show(os.Stderr, "cannot read the credentials: "+trouble)
			}
		},
	})
	if err != nil {
		return err
	}
	transport := s.reader.Transport(s.appid)
	if api, err := url.Parse(s.api); err == nil {
		transport.Hosts = []string{api.Host} // not needed for WeChat's own hosts
	}
	s.http = &http.Client{Transport: transport}
	// The reader ends before the connection: otherwise its last line would be about the connection.
	ctx, end := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer end()
	running.Go(func() { _ = s.reader.Run(ctx) }) // it returns only the error of ctx
	running.Go(func() { s.printChanges(ctx) })
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		word, argument, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if word != "call" {
			show(os.Stdout, s.redeem(ctx, word, argument))
			continue
		}
		times, _ := strconv.Atoi(argument)
		var calls sync.WaitGroup
		for range max(1, times) {
			calls.Go(func() { show(os.Stdout, s.call(ctx)) })
		}
		calls.Wait()
	}
	return nil
}

// printChanges prints each new access_token. The value is a secret, so it prints only six characters, which are
// enough to distinguish tokens.
func (s *service) printChanges(ctx context.Context) {
	for c := range s.reader.Changes(ctx, s.appid) {
		if c.Kind == messages.AccessToken {
			until := c.ExpiresAt.Format(time.RFC3339)
			show(os.Stdout, fmt.Sprintf("%s %.6s… generation %d, valid until %s", c.Kind, c.Value, c.Generation, until))
		}
	}
}

// call calls WeChat; the interface is an example. The transport adds the token. If WeChat refuses the token, the
// transport reports it, once, and repeats the call with the new token.
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

// redeem resolves a code for a customer who waits.
func (s *service) redeem(ctx context.Context, openid, ticket string) string {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	end, _ := ctx.Deadline()
	for wait := 100 * time.Millisecond; ; wait *= 2 {
		code, err := s.resolve(ctx, openid, ticket)
		if err == nil {
			return "code " + code
		}
		// Jitter: a cause often refuses many requests at once, which must not come back at once.
		repeat, words, pause := true, "no answer", wait/2+rand.N(wait)
		if refusal, ok := errors.AsType[*messages.Error](err); ok {
			repeat, words = reaction(refusal)
			words = string(refusal.Symbol) + ": " + words
			pause = max(pause, refusal.RetryAfter())
		}
		switch {
		case !repeat:
			return words
		case time.Now().Add(pause).After(end):
			return words + "; the customer must try again later"
		}
		show(os.Stdout, words+"; the request is repeated")
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// resolve makes one attempt, which takes no longer than a worker may take: an answer that was lost with a connection
// does not come later.
func (s *service) resolve(ctx context.Context, openid, ticket string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	request := messages.ResolveCodeRequest{AppID: s.appid, OpenID: openid, CodeTicket: ticket}
	raw, err := s.workers.ResolveCode(ctx, request)
	if err != nil {
		return "", err
	}
	var answer messages.Code
	err = json.Unmarshal(raw, &answer)
	return answer.Code, err
}

// reaction returns what this service does after a refusal: whether it repeats the request, and what it prints. The
// message of the error is for the operators of the service, never for a customer.
func reaction(e *messages.Error) (repeat bool, words string) {
	switch e.Symbol {
	case messages.Rejected: // errcode 40097: no such code_ticket, or the code_ticket of another customer
		return false, fmt.Sprintf("this code is not valid (errcode %d, rid %s)", e.Errcode, e.RID)
	case messages.InvalidRequest, messages.UnknownKind:
		return false, "a bug of this program: " + e.Message
	case messages.UnknownAccount, messages.NotConfigured:
		return false, "configure the workers: " + e.Message
	case messages.Overloaded, messages.ShuttingDown:
		return true, "another worker may accept it"
	case messages.Upstream, messages.UpstreamTimeout:
		return true, "WeChat has trouble"
	case messages.Throttled, messages.QuotaExhausted:
		return true, "too many requests"
	case messages.NoCredential:
		return true, "the workers have no token now; `wxkeeper status` shows the reason"
	default: // an error of a later version: its code is enough for a decision
		code := e.Code()
		return code == http.StatusTooManyRequests || code >= http.StatusInternalServerError,
			fmt.Sprintf("unknown error (%d): %s", code, e.Message)
	}
}

// show prints one line. Texts of the workers and of WeChat are in it: characters that are not visible are escaped,
// because they could move the cursor of a terminal, or forge a line.
func show(w io.Writer, line string) {
	quoted := strconv.QuoteToGraphic(line)
	fmt.Fprintln(w, strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`))
}
