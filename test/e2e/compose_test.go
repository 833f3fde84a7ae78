//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/messages"
)

const (
	demoAppID = "wx-demo"
	demoUser  = "wxkeeper" // and password, where nothing is configured
	sample    = `{"openid":"oiV2luCau8Cx0TMOy9lvZSLqRcKc","code_ticket":"6cb4bc95e1f1abc97034cbe8fd484989"}`
)

// One demo, from nothing to nothing: workers come and go, one is killed, the NATS node that leads the bucket is killed, and
// then the token, with codes being resolved all the time, and WeChat is called as often as that explains.
func TestNothingIsLostWhileTheFleetChanges(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "DEMO_LIFE=2h")
	f.up(2)
	for service, want := range map[string]int{"nats-1": 1, "nats-2": 1, "nats-3": 1, "worker": 2, "simulator": 1} {
		if n := f.running(service); n != want {
			t.Errorf("%d healthy %s, want %d", n, service, want)
		}
	}
	reply, said := f.request(demoUser, demoUser, "wechat.code.resolve", sample)
	if !strings.Contains(reply, `"errcode":0`) || !strings.Contains(reply, `"code":"8"`) || strings.Contains(said, messages.HeaderErrorCode) {
		t.Errorf("nats req: %s%s", said, reply)
	}
	nc := f.connect(demoUser, demoUser)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	l := startLoad(f, nc, demoAppID)

	f.up(4)
	names := map[string]bool{}
	f.until("four workers that answer", func() bool {
		st, err := l.client.Status(f.ctx, messages.StatusRequest{})
		if err == nil {
			names[st.Worker] = true
		}
		return len(names) == 4
	})
	l.goesOn("after scaling up")

	f.kill(f.containers("worker")[0])
	l.goesOn("after a worker was killed")

	leader := leaderOf(f, js)
	f.kill(f.containers(leader)[0])
	t.Logf("killed %s, which led the bucket, and a worker", leader)
	l.goesOn("after a NATS node was killed")
	f.until("another leader of the bucket", func() bool { now := leaderOf(f, js); return now != "" && now != leader })
	held, err := l.reader.Get(demoAppID, messages.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	f.ask("/revoke", map[string]string{"token": held.Value}, nil)
	l.goesOn("after its token was killed")
	f.until("a new token, with two NATS nodes of three", func() bool {
		now, err := l.reader.Get(demoAppID, messages.AccessToken)
		return err == nil && now.Generation == held.Generation+1
	})

	f.up(4) // both come back, and a node is healthy only when it has caught up
	if again := f.running(leader); again != 1 {
		t.Errorf("%s is not healthy", leader)
	}
	f.until("three current replicas of the bucket", func() bool { return current(f, js) == 3 })
	l.goesOn("after they came back")

	// The way in which docs/deploy.md has NATS upgraded: one node at a time.
	for _, node := range []string{"nats-1", "nats-2", "nats-3"} {
		f.compose("up", "--detach", "--wait", "--no-deps", "--force-recreate", node)
		l.goesOn("after " + node + " was made anew")
	}
	// And the workers: new ones beside the old ones, then the old ones go. Another setting is as good as another image.
	before := ids(f.containers("worker"))
	f.env = append(f.env, "WXKEEPER_LOG_LEVEL=debug")
	f.up(5)
	if n := f.running("worker"); n != 5 {
		t.Errorf("%d workers, want four old and a new one", n)
	}
	f.compose("--profile=demo", "up", "--detach", "--wait", "--no-build", "--scale=worker=1")
	if after := ids(f.containers("worker")); len(after) != 1 || before[slices.Collect(maps.Keys(after))[0]] {
		t.Errorf("after the upgrade there are %v, before it %v", after, before)
	}
	if n := f.running("worker"); n != 1 {
		t.Errorf("%d workers after scaling down", n)
	}
	l.goesOn("after scaling down")
	l.stop()
	l.done.Wait()
	l.failed("at the end")

	calls := f.calls(demoAppID)
	t.Logf("%d answers, %d attempts more: %v", l.answered.Load(), l.retried.Load(), calls)
	explained(t, calls)

	// Stopped, not killed: each ends by itself, within its grace.
	f.compose("--profile=demo", "stop")
	for _, service := range []string{"worker", "simulator"} {
		for _, c := range f.containers(service) {
			if c.State != "exited" || c.ExitCode != 0 {
				t.Errorf("%+v", c)
			}
		}
	}
}

func ids(list []container) map[string]bool {
	set := map[string]bool{}
	for _, c := range list {
		set[c.ID] = true
	}
	return set
}

// explained compares the calls with what has happened. Everything lives for two hours, so each ticket is fetched once, and
// the token once more because it was killed: where WeChat still gives out the dead one, the second call is a forced one.
func explained(t *testing.T, calls map[string]counters) {
	t.Helper()
	token, ticket, code := calls["stable_token"], calls["getticket"], calls["tickettocode"]
	if token.Minted != 2 || token.Calls > 3 || token.MaxConcurrent != 1 {
		t.Errorf("stable_token: %+v, want two tokens, in three calls at most, one after the other", token)
	}
	if ticket.Calls != 2 {
		t.Errorf("getticket: %+v, want two calls", ticket)
	}
	if delete(code.Errcodes, 0); code.Errcodes[40001] == 0 || len(code.Errcodes) != 1 {
		t.Errorf("tickettocode: %v, want refusals of the dead token alone", code.Errcodes)
	}
}

// bucket is how the cluster keeps the credential bucket; nil: nobody says so now.
func bucket(f *fleet, js jetstream.JetStream) *jetstream.ClusterInfo {
	ctx, cancel := context.WithTimeout(f.ctx, 2*time.Second) // a request without a leader gets no answer
	defer cancel()
	s, err := js.Stream(ctx, "KV_wechat")
	if err != nil {
		return nil
	}
	return s.CachedInfo().Cluster
}

// leaderOf is the NATS node that leads the credential bucket; empty: none is known.
func leaderOf(f *fleet, js jetstream.JetStream) string {
	b := bucket(f, js)
	if b == nil {
		return ""
	}
	return b.Leader
}

// current counts the replicas of the credential bucket that have all of it.
func current(f *fleet, js jetstream.JetStream) int {
	b := bucket(f, js)
	if b == nil {
		return 0
	}
	n := 1
	for _, r := range b.Replicas {
		if r.Current && !r.Offline {
			n++
		}
	}
	return n
}

// Without the profile it is for the real WeChat, and an account is missing.
func TestWithoutAnAccountItSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	out, err := f.try("up", "--detach", "--no-build")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(out, "account-configured") {
		t.Errorf("docker compose up: %v\n%s", err, out)
	}
	logs := f.compose("logs", "account-configured")
	if !strings.Contains(logs, "No account is configured: set WECHAT_APPID") || !strings.Contains(logs, "docker compose --profile demo up") {
		t.Errorf("it says %q", logs)
	}
	for _, c := range f.containers("worker") {
		if c.State == "running" {
			t.Errorf("a worker runs without an account: %+v", c)
		}
	}
}

// An account of one's own, its secret in a file that only its owner reads, passwords of digits: none of the demo's
// settings is left.
func TestAnAccountOfOnesOwnTakesTheDemosPlace(t *testing.T) {
	t.Parallel()
	const appid, secret, password = "wx0123456789abcdef", "fedcba9876543210fedcba9876543210", "1234567890"
	secrets := t.TempDir()
	if err := os.WriteFile(filepath.Join(secrets, "shop.secret"), []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFleet(t, "WECHAT_APPID="+appid, "WECHAT_SECRET_FILE=secrets/shop.secret", "SECRETS_DIR="+secrets,
		fmt.Sprintf("WORKER_USER=%d:%d", os.Getuid(), os.Getgid()), "WECHAT_TICKETS=none",
		"NATS_USER=shop", "NATS_PASSWORD="+password, "NATS_CLUSTER_PASSWORD=42",
		"WECHAT_API_URL=http://simulator:8090", "WECHAT_API_INSECURE=true") // api.weixin.qq.com is not to be called by a test
	f.compose("--profile=demo", "up", "--detach", "--wait", "--no-build", "simulator")
	f.ask("/accounts", map[string]string{"appid": appid, "secret": secret}, nil)
	f.up(1)
	reply, said := f.request("shop", password, "wechat.code.resolve."+appid, sample)
	if !strings.Contains(reply, `"code":"8"`) {
		t.Errorf("nats req: %s%s", said, reply)
	}
	if calls := f.calls(appid); calls["stable_token"].Calls != 1 || calls["getticket"].Calls != 0 || len(f.calls(demoAppID)) != 0 {
		t.Errorf("calls %v, and of the demo %v", calls, f.calls(demoAppID))
	}
	if logs := f.compose("logs", "worker"); strings.Contains(logs, secret) || strings.Contains(logs, password) {
		t.Errorf("a secret in the log:\n%s", logs)
	}
	// In the container the verbs find their worker without a flag.
	if out := f.compose("exec", "-T", "worker", "wxkeeper", "status"); !strings.Contains(out, "fresh  "+appid) {
		t.Errorf("wxkeeper status: %s", out)
	}
}

// The image has what TLS to api.weixin.qq.com needs, a user who is not root, and one binary: no shell.
func TestImageIsTheBinaryAndItsAuthorities(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	out, err := exec.CommandContext(f.ctx, "docker", "image", "inspect", image).Output()
	var inspected []struct {
		Config struct{ User string }
	}
	if err != nil || json.Unmarshal(out, &inspected) != nil || len(inspected) != 1 || inspected[0].Config.User != "65532:65532" {
		t.Errorf("docker image inspect: %v\n%s", err, out)
	}
	f.compose("create", "--no-build", "worker")
	archive, err := exec.CommandContext(f.ctx, "docker", "export", f.containers("worker")[0].Name).Output()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg && h.Size > 0 { // the engine puts empty files where it will mount its own
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			files[h.Name] = b
		}
	}
	if !bytes.Contains(files["etc/ssl/certs/ca-certificates.crt"], []byte("BEGIN CERTIFICATE")) {
		t.Error("no authorities: no TLS to api.weixin.qq.com")
	}
	if !bytes.HasPrefix(files["usr/local/bin/wxkeeper"], []byte("\x7fELF")) || len(files) != 2 {
		for name, b := range files {
			t.Errorf("in the image: %s, %d bytes", name, len(b))
		}
	}
}
