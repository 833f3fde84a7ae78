//go:build interop

package interop

import (
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
	appid    = "wx0123456789abcdef"
	barred   = "wxbarred" // an account that WeChat refuses
	stranger = "wxother"  // one that the workers do not know
	secret   = "0123456789abcdef0123456789abcdef"
	openid   = "oiV2luCau8Cx0TMOy9lvZSLqRcKc" // the sample of WeChat's page of tickettocode
	ticket   = "6cb4bc95e1f1abc97034cbe8fd484989"
	sample   = openid + " " + ticket
	// The user of NATS by which the programs connect, who may do no more than they need; admin may do everything.
	service, admin, passphrase = "shop", "admin", "swordfish"

	longest = "60" // seconds of a customer's patience: more than any machine needs
)

// languages are the commands of the examples.
func languages(t *testing.T) map[string][]string {
	t.Helper()
	if _, err := os.Stat("../../examples/node/node_modules/@nats-io/transport-node"); err != nil {
		t.Fatalf("run `make interop`, which installs what the example needs (%v)", err)
	}
	program, err := goExample()
	if err != nil {
		t.Fatal(err)
	}
	// The one in JavaScript looks at the bucket so seldom that its other means are all it has.
	return map[string][]string{"node": {"node", "../../examples/node/main.mjs", "--look", "3600"}, "go": {program}}
}

// goExample builds the example in Go, once.
var goExample = sync.OnceValues(func() (string, error) {
	program := filepath.Join(buildDir, "example")
	if out, err := exec.Command("go", "build", "-race", "-o", program, "../../examples/go").CombinedOutput(); err != nil {
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

// The life of a service: it starts before NATS does, and is there when WeChat, NATS and the bucket fail.
func TestExamplesLiveThroughWhatFails(t *testing.T) {
	t.Parallel()
	for name, command := range languages(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			door := newDoor(t, h.nats.URL())
			h.nats.Stop()
			p := begin(t, command, h.args("--appid", appid, "--nats", door.url())...)
			door.knocked(1)
			h.nats.Restart()
			h.worker()

			token := func(generation int) {
				t.Helper()
				g := p.has(`access_token (\S{6})… generation ` + strconv.Itoa(generation) + `, good until \d{4}-.*`)
				h.has(uint64(generation))
				if now := h.values[len(h.values)-1]; !strings.HasPrefix(now, g[1]) {
					t.Errorf("generation %d is not that of the bucket", generation)
				}
			}
			token(1)
			p.asks(sample, "code 8")
			p.asks("call", "called WeChat with generation 1: errcode 0")

			// Another system kills the token. The program reports it, once, and goes on with the new one.
			reports, err := h.nc.SubscribeSync("wechat.credential.refresh." + appid)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := h.wechat.ForeignRefresh(appid, "stable_token"); err != nil {
					t.Fatal(err)
				}
			}
			p.says("call 20")
			token(2)
			for range 20 {
				p.find("called WeChat with generation 2: errcode 0")
			}
			if n, _, err := reports.Pending(); n != 1 || err != nil {
				t.Errorf("%d reports, %v", n, err)
			}
			if name == "node" && !strings.Contains(p.String(), "\nWeChat refuses generation 1, reported: refreshed, the current one is generation 2\n") {
				t.Error("it does not tell what became of its report")
			}

			// The server is away for more tries than nats.js makes by itself. A customer waits for it; and a token is renewed
			// before the program is back.
			h.nats.Stop()
			p.says(sample)
			door.knocked(12)
			h.nats.Restart()
			h.publishes(3)
			token(3)
			p.find("code 8")
			h.publishes(4) // what comes after it is heard as well
			token(4)
			h.knows(4)

			// The bucket is made anew, with revisions from 1 on.
			if err := h.js.DeleteKeyValue(testContext(t), messages.DefaultBucket); err != nil {
				t.Fatal(err)
			}
			h.has(4) // the worker publishes again what it holds
			h.publishes(5)
			token(5)
			p.asks("call", "called WeChat with generation 5: errcode 0")

			h.troubles(p)
			p.ends()
			for _, hidden := range append(h.values, secret, openid, ticket) {
				if strings.Contains(p.String(), hidden) {
					t.Errorf("it shows %.6s…", hidden)
				}
			}
		})
	}
}

// troubles are the refusals that WeChat and this worker can be made to give.
func (h *house) troubles(p *program) {
	h.Helper()
	p.asks(openid+" unknown", `rejected: this code is not good \(errcode 40097, rid \S+\)`)
	p.asks(strings.Repeat("o", messages.MaxOpenID+1)+" "+ticket, `invalid_request: a fault of this program: .*openid.*`)
	for _, fault := range []struct {
		symbol messages.Symbol
		wechattest.Fault
	}{
		{messages.Upstream, wechattest.Fault{Endpoint: "tickettocode", Body: "html"}},
		{messages.UpstreamTimeout, wechattest.Fault{Endpoint: "tickettocode", Hang: true}},
		{messages.QuotaExhausted, wechattest.Fault{Endpoint: "tickettocode", Errcode: 45009}},
	} {
		h.wechat.Inject(fault.Fault)
		p.says(sample)
		if fault.symbol == messages.QuotaExhausted { // that is for long
			p.find(string(fault.symbol) + `: .*, but not so soon: the customer is asked to come back`)
			h.wechat.ClearFaults()
			continue
		}
		p.find(string(fault.symbol) + `: .*asked again`)
		h.wechat.ClearFaults()
		p.find("code 8")
	}
}

// Accounts that the worker does not have, or that WeChat refuses.
func TestExamplesSayWhatIsWrongWithAnAccount(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.worker()
	h.has(1)
	for name, command := range languages(t) {
		t.Run(name, func(t *testing.T) {
			p := begin(t, command, h.args("--appid", stranger)...)
			p.asks(sample, `unknown_account: the workers must be configured: .*`)
			p = begin(t, command, h.args("--appid", barred)...)
			p.asks(sample, "no_credential: the workers have no token now, asked again; `wxkeeper status` says why, but not so soon: the customer is asked to come back")
		})
	}
}

// symbols are all errors of the contract: a new one is tried here by itself, and fails where an example does not know it.
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

// Every error of the contract has a reaction of its own: what may pass is asked again, what does not is asked once.
func TestExamplesKnowEveryError(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	asked := map[string]int{} // by subject, whose prefix is that of a program, and code_ticket
	fake := func(m *nats.Msg) {
		var req messages.ResolveCodeRequest
		if err := json.Unmarshal(m.Data, &req); err != nil || req.AppID != appid {
			t.Errorf("request %v: %v", req.AppID, err)
		}
		mu.Lock()
		defer mu.Unlock()
		key := m.Subject + " " + req.CodeTicket
		asked[key]++
		if asked[key] > 1 {
			_ = m.Respond([]byte(`{"errcode":0,"errmsg":"ok","code":"007"}`))
			return
		}
		e := messages.Errorf(messages.Symbol(req.CodeTicket), "in words").After(time.Millisecond)
		e.Errcode, e.RID = 1, "2"
		body, err := json.Marshal(e)
		if err != nil {
			t.Error(err)
		}
		reply := &nats.Msg{Data: body, Header: e.Header()}
		if req.CodeTicket == "foreign" { // an error, but none of ours
			reply.Data, reply.Header = []byte("broken"), nats.Header{messages.HeaderErrorCode: {"418"}, messages.HeaderError: {"broken"}}
		}
		_ = m.RespondMsg(reply)
	}
	for name, command := range languages(t) {
		h := newHouseOf(t, name)
		subject := name + "." + messages.SubjectCodeResolve + "." + appid
		if _, err := h.nc.Subscribe(subject, fake); err != nil {
			t.Fatal(err)
		}
		if err := h.nc.Flush(); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			p := begin(t, command, h.args("--appid", appid, "--prefix", name)...)
			count := func(symbol string) int {
				mu.Lock()
				defer mu.Unlock()
				return asked[subject+" "+symbol]
			}
			for _, s := range symbols(t) {
				p.says("someone " + string(s))
				words := p.find(string(s) + `: (.+)`)[1]
				times := 1
				if s.Code() == 429 || s.Code() >= 500 {
					times = 2
					p.find("code 007")
				}
				if n := count(string(s)); n != times || strings.Contains(words, "unknown here") {
					t.Errorf("%s: asked %d times instead of %d: %s", s, n, times, words)
				}
			}
			p.asks("someone from_a_later_version", `from_a_later_version: unknown here.*: in words`)
			p.asks("someone foreign", `code_418: unknown here.*: broken`)
			p.ends()
			if strings.Contains(p.String(), "someone") {
				t.Error("it shows an openid")
			}
		})
	}
}

// A record that would be a step back is not taken; that of a bucket made anew, whose workers had lost the count, is. And a
// dead one is never shown.
func TestExamplesGoBackOnlyWithTheBucket(t *testing.T) {
	t.Parallel()
	for name, command := range languages(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			now := time.Now()
			h.makesBucket()
			h.puts(7, now, now.Add(time.Hour))
			p := begin(t, command, h.args("--appid", appid)...)
			p.find(`access_token \S+ generation 7, .*`)
			h.makesBucket()
			h.puts(8, now, now.Add(time.Hour)) // with the very revision that 7 had
			p.find(`access_token \S+ generation 8, .*`)

			h.makesBucket()
			h.puts(6, now.Add(-time.Minute), now.Add(time.Hour)) // a backup
			h.puts(9, now, now.Add(time.Hour))
			p.find(`access_token \S+ generation 9, .*`)

			h.makesBucket()
			longer := now.Add(2 * time.Hour).UTC()
			h.puts(9, now, longer) // the same value, with a longer life and a lower revision
			p.find(`access_token \S+ generation 9, good until ` + longer.Format("2006-01-02T15:04") + `.*`)

			h.makesBucket()
			h.puts(1, now.Add(time.Minute), now.Add(time.Hour))
			p.find(`access_token \S+ generation 1, .*`)
			h.puts(2, now.Add(-time.Hour), now.Add(-time.Minute))
			h.puts(3, now.Add(time.Minute), now.Add(time.Hour))
			p.find(`access_token \S+ generation 3, .*`)
			p.ends()
			if g := regexp.MustCompile(`generation (6|2),`).FindString(p.String()); g != "" {
				t.Errorf("it took %s", g)
			}
		})
	}
}

// What no message tells is found by looking: here the bucket republishes nothing.
func TestExampleInJavaScriptLooksNowAndThen(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	if _, err := h.js.CreateKeyValue(testContext(t), jetstream.KeyValueConfig{Bucket: messages.DefaultBucket}); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	h.puts(1, now, now.Add(time.Hour))
	p := begin(t, languages(t)["node"], h.args("--appid", appid, "--look", "0.1")...)
	for generation := range uint64(3) {
		h.puts(generation+1, now, now.Add(time.Hour))
		p.find(fmt.Sprintf(`access_token \S+ generation %d, .*`, generation+1))
	}
	p.ends()
}

// makesBucket makes the bucket anew.
func (h *house) makesBucket() {
	h.Helper()
	if err := h.js.DeleteKeyValue(testContext(h.T), messages.DefaultBucket); err != nil && !errors.Is(err, jetstream.ErrBucketNotFound) {
		h.Fatal(err)
	}
	h.eventually(h.store.Ensure)
}

// puts puts a record into the bucket without the care of a worker.
func (h *house) puts(generation uint64, obtained, expires time.Time) {
	h.Helper()
	record, err := json.Marshal(messages.Credential{
		AppID: appid, Kind: messages.AccessToken, Value: fmt.Sprintf("97_value_of_%d", generation), ObtainedAt: obtained.UTC(), ExpiresAt: expires.UTC(),
		RefreshAt: obtained.UTC(), Generation: generation, Source: messages.SourceStableToken, Worker: "second",
	})
	if err == nil {
		_, err = h.js.Publish(testContext(h.T), "$KV."+messages.DefaultBucket+"."+messages.Key(appid, messages.AccessToken), record)
	}
	if err != nil {
		h.Fatal(err)
	}
}
