//go:build interop

package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

const (
	appid        = "wx0123456789abcdef"
	refusedAppID = "wxbarred" // WeChat refuses this account
	unknownAppID = "wxother"  // the workers do not know this account
	secret       = "0123456789abcdef0123456789abcdef"
	openid       = "oiV2luCau8Cx0TMOy9lvZSLqRcKc" // the sample of WeChat's page of tickettocode
	ticket       = "6cb4bc95e1f1abc97034cbe8fd484989"
	sample       = openid + " " + ticket

	// The programs connect as the NATS user service, which has only the permissions that they need. The user
	// admin has all permissions.
	service, admin, passphrase = "shop", "admin", "swordfish"

	patience = "180" // seconds that a customer waits: longer than a busy machine needs
)

// languages returns the command of each example.
func languages(t *testing.T) map[string][]string {
	t.Helper()
	if _, err := os.Stat("../../examples/node/node_modules/@nats-io/transport-node"); err != nil {
		t.Fatalf("run `make interop`, which installs the modules of the example (%v)", err)
	}
	program, err := goExample()
	if err != nil {
		t.Fatal(err)
	}
	// The example in JavaScript reads so rarely that only its other means can find a change.
	return map[string][]string{
		"node": {"node", "../../examples/node/main.mjs", "--read-every", "3600"},
		"go":   {program},
	}
}

// goExample builds the example in Go, once.
var goExample = sync.OnceValues(func() (string, error) {
	program := filepath.Join(buildDir, "example")
	build := exec.Command("go", "build", "-race", "-o", program, "../../examples/go")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return program, nil
})

var buildDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "wxkeeper-interop-")
	if err != nil {
		panic(err)
	}
	buildDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// The life of a service: it starts before NATS, and serves through failures of WeChat, of NATS and of the bucket.
func TestExamplesServeThroughFailures(t *testing.T) {
	t.Parallel()
	for name, command := range languages(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			b := newBalancer(t, f.nats.URL())
			f.nats.Stop()
			p := start(t, command, f.args("--appid", appid, "--nats", b.url())...)
			b.awaitRefused(1)
			f.nats.Restart()
			f.startWorker()

			expectToken := func(generation int) {
				t.Helper()
				pattern := `access_token (\S{6})… generation ` + strconv.Itoa(generation) + `, valid until \d{4}-.*`
				printed := p.expectAnywhere(pattern)[1]
				f.awaitBucket(uint64(generation))
				if now := f.values[len(f.values)-1]; !strings.HasPrefix(now, printed) {
					t.Errorf("the value of generation %d is not the value in the bucket", generation)
				}
			}
			expectToken(1)
			p.ask(sample, "code 8")
			p.ask("call", "called WeChat with generation 1: errcode 0")

			// Another system replaces the token. The program reports it once, and continues with the new token.
			reports, err := f.nc.SubscribeSync("wechat.credential.refresh." + appid)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := f.wechat.ForeignRefresh(appid, "stable_token"); err != nil {
					t.Fatal(err)
				}
			}
			p.send("call 20")
			expectToken(2)
			for range 20 {
				p.expect("called WeChat with generation 2: errcode 0")
			}
			if n, _, err := reports.Pending(); n != 1 || err != nil {
				t.Errorf("%d reports (%v), want 1", n, err)
			}
			if name == "node" { // in Go the Transport reports, and prints nothing
				p.expectAnywhere("WeChat refused generation 1; reported: refreshed, now generation 2")
			}

			// The server is down for more attempts than nats.js makes by default. A customer waits, and another
			// worker publishes a token before the program has reconnected.
			f.nats.Stop()
			p.send(sample)
			b.awaitRefused(12)
			f.nats.Restart()
			f.publish(3)
			expectToken(3)
			p.expect("code 8")
			f.publish(4) // a change after the reconnection
			expectToken(4)
			f.awaitWorker(4)

			// The bucket is recreated; its revisions begin at 1 again.
			if err := f.js.DeleteKeyValue(testContext(t), messages.DefaultBucket); err != nil {
				t.Fatal(err)
			}
			f.awaitBucket(4) // the worker republishes what it holds
			f.publish(5)
			expectToken(5)
			p.ask("call", "called WeChat with generation 5: errcode 0")

			f.refuse(p)
			p.stop()
			for _, hidden := range append(f.values, secret, openid, ticket) {
				if strings.Contains(p.String(), hidden) {
					t.Errorf("the output shows %.6s…", hidden)
				}
			}
		})
	}
}

// refuse makes WeChat and the worker refuse requests, and checks the reaction to each refusal.
func (f *fixture) refuse(p *program) {
	f.Helper()
	p.ask(openid+" unknown", `rejected: this code is not valid \(errcode 40097, rid \S+\)`)
	tooLong := strings.Repeat("o", messages.MaxOpenID+1)
	p.ask(tooLong+" "+ticket, `invalid_request: a bug of this program: .*openid.*`)
	for _, tt := range []struct {
		symbol messages.Symbol
		wechattest.Fault
	}{
		{messages.Upstream, wechattest.Fault{Endpoint: "tickettocode", Body: "html"}},
		{messages.UpstreamTimeout, wechattest.Fault{Endpoint: "tickettocode", Hang: true}},
		{messages.QuotaExhausted, wechattest.Fault{Endpoint: "tickettocode", Errcode: 45009}},
	} {
		f.wechat.Inject(tt.Fault)
		p.send(sample)
		if tt.symbol == messages.QuotaExhausted { // for longer than the customer waits
			p.expect(string(tt.symbol) + `: .*; the customer must try again later`)
			f.wechat.ClearFaults()
			continue
		}
		p.expect(string(tt.symbol) + `: .*; the request is repeated`)
		f.wechat.ClearFaults()
		p.expect("code 8")
	}
}

// The workers do not know one account, and WeChat refuses the other.
func TestExamplesPrintWhatIsWrongWithAnAccount(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.startWorker()
	f.awaitBucket(1)
	for name, command := range languages(t) {
		t.Run(name, func(t *testing.T) {
			p := start(t, command, f.args("--appid", unknownAppID)...)
			p.ask(sample, `unknown_account: configure the workers: .*`)
			p = start(t, command, f.args("--appid", refusedAppID)...)
			p.ask(sample, "no_credential: the workers have no token now; `wxkeeper status` shows the reason; "+
				"the customer must try again later")
		})
	}
}

// JetStream acknowledges a request that a stream stores before the worker replies.
func TestExamplesTakeNoAcknowledgementForTheReply(t *testing.T) {
	t.Parallel()
	for name, command := range languages(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.startWorker()
			audit := jetstream.StreamConfig{Name: "AUDIT", Subjects: []string{"wechat.>"}}
			if _, err := f.js.CreateStream(testContext(t), audit); err != nil {
				t.Fatal(err)
			}
			p := start(t, command, f.args("--appid", appid)...)
			p.expectAnywhere(`access_token (\S{6})… generation 1, valid until \d{4}-.*`)
			f.awaitBucket(1)
			for range 20 {
				p.ask(sample, "code 8")
			}
		})
	}
}

// symbols returns all errors of the contract, from their source: a new one fails the test until the examples know it.
func symbols(t *testing.T) []messages.Symbol {
	t.Helper()
	source, err := os.ReadFile("../../messages/errors.go")
	if err != nil {
		t.Fatal(err)
	}
	var all []messages.Symbol
	for _, m := range regexp.MustCompile(`(?m)^\t\w+ +Symbol = "(\w+)"`).FindAllSubmatch(source, -1) {
		all = append(all, messages.Symbol(m[1]))
	}
	if len(all) < 12 {
		t.Fatalf("only %d symbols in messages/errors.go", len(all))
	}
	return all
}

// The examples have a reaction to every error of the contract: they repeat the request if the error may pass, and
// only then.
func TestExamplesKnowEveryError(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	requests := map[string]int{} // by subject (its prefix is the language) and code_ticket
	// The fake worker refuses the first request for each code_ticket with the error that the code_ticket names.
	fake := func(m *nats.Msg) {
		var req messages.ResolveCodeRequest
		if err := json.Unmarshal(m.Data, &req); err != nil {
			t.Errorf("request: %v", err)
		}
		if req.AppID != appid {
			t.Errorf("request for %s", req.AppID)
		}
		mu.Lock()
		defer mu.Unlock()
		key := m.Subject + " " + req.CodeTicket
		requests[key]++
		if requests[key] > 1 {
			_ = m.RespondMsg(&nats.Msg{
				Header: nats.Header{messages.HeaderReply: {messages.ReplyVersion}},
				Data:   []byte(`{"errcode":0,"errmsg":"ok","code":"007"}`),
			})
			return
		}
		e := messages.Errorf(messages.Symbol(req.CodeTicket), "in words").After(time.Millisecond)
		e.Errcode, e.RID = 1, "2"
		body, err := json.Marshal(e)
		if err != nil {
			t.Error(err)
		}
		reply := &nats.Msg{Data: body, Header: e.Header()}
		if req.CodeTicket == "foreign" { // an error of a later version
			reply.Data = []byte("broken")
			reply.Header = nats.Header{
				messages.HeaderReply: {"2"}, messages.HeaderErrorCode: {"418"}, messages.HeaderError: {"broken"},
			}
		}
		_ = m.RespondMsg(reply)
	}
	for name, command := range languages(t) {
		f := newFixtureWithPrefix(t, name)
		subject := name + "." + messages.SubjectCodeResolve + "." + appid
		if _, err := f.nc.Subscribe(subject, fake); err != nil {
			t.Fatal(err)
		}
		if err := f.nc.Flush(); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			p := start(t, command, f.args("--appid", appid, "--prefix", name)...)
			for _, s := range symbols(t) {
				p.send("someone " + string(s))
				words := p.expect(string(s) + `: (.+)`)[1]
				if strings.Contains(words, "unknown error") {
					t.Errorf("%s: the example does not know it: %s", s, words)
				}
				want := 1
				if s.Code() == 429 || s.Code() >= 500 {
					want = 2
					p.expect("code 007")
				}
				mu.Lock()
				n := requests[subject+" "+string(s)]
				mu.Unlock()
				if n != want {
					t.Errorf("%s: %d requests, want %d", s, n, want)
				}
			}
			p.ask("someone from_a_later_version", `from_a_later_version: unknown error.*: in words.*`)
			p.ask("someone foreign", `code_418: unknown error.*: broken`)
			p.stop()
			if strings.Contains(p.String(), "someone") {
				t.Error("the output shows an openid")
			}
		})
	}
}

// The examples ignore a record with a lower generation, unless it was obtained later. They never adopt an expired
// record.
func TestExamplesGoBackOnlyToALaterValue(t *testing.T) {
	t.Parallel()
	for name, command := range languages(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.answerFromBucket()
			now := time.Now()
			f.recreateBucket()
			f.put(7, now, now.Add(time.Hour))
			p := start(t, command, f.args("--appid", appid)...)
			p.expect(`access_token \S+ generation 7, .*`)
			f.recreateBucket()
			f.put(8, now, now.Add(time.Hour)) // with the same revision as 7
			p.expect(`access_token \S+ generation 8, .*`)

			f.recreateBucket()
			f.put(6, now.Add(-time.Minute), now.Add(time.Hour)) // from a backup
			f.put(9, now, now.Add(time.Hour))
			p.expect(`access_token \S+ generation 9, .*`)

			f.recreateBucket()
			longer := now.Add(2 * time.Hour).UTC()
			f.put(9, now, longer) // the same value, with a longer life and a lower revision
			p.expect(`access_token \S+ generation 9, valid until ` + longer.Format("2006-01-02T15:04") + `.*`)

			f.recreateBucket()
			f.put(1, now.Add(time.Minute), now.Add(time.Hour)) // the count starts again
			p.expect(`access_token \S+ generation 1, .*`)
			f.put(2, now.Add(-time.Hour), now.Add(-time.Minute)) // expired
			f.put(3, now.Add(time.Minute), now.Add(time.Hour))
			p.expect(`access_token \S+ generation 3, .*`)
			p.stop()
			if g := regexp.MustCompile(`generation (6|2),`).FindString(p.String()); g != "" {
				t.Errorf("the example has adopted %s", g)
			}
		})
	}
}

// The example in JavaScript finds changes without a message by reading: here the bucket republishes nothing.
func TestExampleInJavaScriptReadsAtAnInterval(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.answerFromBucket()
	bucket := jetstream.KeyValueConfig{Bucket: messages.DefaultBucket}
	if _, err := f.js.CreateKeyValue(testContext(t), bucket); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	f.put(1, now, now.Add(time.Hour))
	p := start(t, languages(t)["node"], f.args("--appid", appid, "--read-every", "0.1")...)
	for generation := range uint64(3) {
		f.put(generation+1, now, now.Add(time.Hour))
		p.expect(fmt.Sprintf(`access_token \S+ generation %d, .*`, generation+1))
	}
	p.stop()
}

// The service of one account must not use the token of another, nor any token that no worker has returned: its
// calls would succeed in the name of whoever put the token there.
func TestExamplesBelieveNoPublishedMessage(t *testing.T) {
	t.Parallel()
	for name, command := range languages(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			stop := f.startWorker()
			p := start(t, command, f.args("--appid", appid)...)
			p.expectAnywhere(`access_token \S+ generation 1, .*`)
			f.awaitBucket(1)

			now := time.Now()
			of := func(account string) []byte {
				body, err := json.Marshal(messages.Credential{
					AppID: account, Kind: messages.AccessToken, Value: "97_value_of_another", Generation: 99,
					ObtainedAt: now.UTC(), ExpiresAt: now.Add(time.Hour).UTC(), RefreshAt: now.UTC(),
					Source: messages.SourceStableToken, Worker: "first",
				})
				if err != nil {
					t.Fatal(err)
				}
				return body
			}
			for _, body := range [][]byte{of(unknownAppID), of(appid), []byte("junk"), nil} {
				for _, sequence := range []string{"2", "18446744073709551615", "junk", ""} {
					m := nats.NewMsg(messages.PublishedSubject(messages.DefaultPrefix, appid, messages.AccessToken))
					m.Data = body
					if sequence != "" {
						m.Header.Set("Nats-Sequence", sequence)
						m.Header.Set("Nats-Time-Stamp", now.Add(time.Minute).Format(time.RFC3339Nano))
					}
					if err := f.nc.PublishMsg(m); err != nil {
						t.Fatal(err)
					}
				}
			}
			p.ask("call", "called WeChat with generation 1: errcode 0")

			// The only worker is lost. The program continues, and receives what the next one publishes.
			stop()
			p.ask("call", "called WeChat with generation 1: errcode 0")
			f.publish(2)
			f.startWorker()
			p.expectAnywhere(`access_token \S+ generation 2, .*`)
			p.ask("call", "called WeChat with generation 2: errcode 0")
			p.stop()
			for _, forged := range []string{"generation 99", "97_val"} {
				if strings.Contains(p.String(), forged) {
					t.Errorf("the example has adopted a forged message: %s", forged)
				}
			}
		})
	}
}

// A worker that was taken over, or whoever answers in its place, must not choose whose token a service uses.
func TestExamplesIgnoreARecordThatTheyHaveNotAskedFor(t *testing.T) {
	t.Parallel()
	for name, command := range languages(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			now := time.Now().UTC().Truncate(time.Millisecond)
			good := messages.Credential{
				AppID: appid, Kind: messages.AccessToken, Value: "97_value", Generation: 7, Revision: 1,
				ObtainedAt: now, ExpiresAt: now.Add(time.Hour), RefreshAt: now,
				Source: messages.SourceStableToken, Worker: "first",
			}
			account, kind, future, absurd := good, good, good, good
			account.AppID, kind.Kind, absurd.Generation = unknownAppID, messages.JSAPITicket, 1<<63
			future.ObtainedAt, future.ExpiresAt = now.Add(10*24*time.Hour), now.Add(11*24*time.Hour)
			replies := []messages.Credential{account, kind, future, absurd, good}
			for i := range replies[:4] {
				replies[i].Value = "98_forged"
			}
			next := make(chan messages.Credential, len(replies))
			for _, r := range replies {
				next <- r
			}
			f.answer("wechat.credential.get."+appid, func(m *nats.Msg) any {
				var req messages.GetCredentialRequest
				if json.Unmarshal(m.Data, &req) != nil || req.Kind != messages.AccessToken {
					return messages.ErrNotConfigured
				}
				select {
				case c := <-next:
					return c
				default:
					return good
				}
			})
			p := start(t, command, f.args("--appid", appid)...)
			f.eventually(func(context.Context) error { // each hint leads to another read
				if len(next) == 0 {
					return nil
				}
				err := f.nc.Publish(messages.PublishedSubject(messages.DefaultPrefix, appid, messages.AccessToken), nil)
				return errors.Join(err, fmt.Errorf("%d replies are left", len(next)))
			})
			p.expectAnywhere(`access_token 97_val… generation 7, .*`)
			p.expectAnywhere(`cannot read the \w+: .*`)
			p.stop()
			if strings.Contains(p.String(), "98_for") {
				t.Error("the example has adopted a record that it has not asked for")
			}
		})
	}
}

// put writes a record into the bucket without a lease.
func (f *fixture) put(generation uint64, obtained, expires time.Time) {
	f.Helper()
	record, err := json.Marshal(messages.Credential{
		AppID: appid, Kind: messages.AccessToken, Value: fmt.Sprintf("97_value_of_%d", generation),
		ObtainedAt: obtained.UTC(), ExpiresAt: expires.UTC(), RefreshAt: obtained.UTC(),
		Generation: generation, Source: messages.SourceStableToken, Worker: "second",
	})
	if err != nil {
		f.Fatal(err)
	}
	subject := "$KV." + messages.DefaultBucket + "." + messages.Key(appid, messages.AccessToken)
	if _, err := f.js.Publish(testContext(f.T), subject, record); err != nil {
		f.Fatal(err)
	}
}
