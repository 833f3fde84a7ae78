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

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/messages"
)

const (
	demoAppID = "wx-demo"
	play      = "play" // the password of every NATS user if no account is configured
	sample    = `{"openid":"oiV2luCau8Cx0TMOy9lvZSLqRcKc","code_ticket":"6cb4bc95e1f1abc97034cbe8fd484989"}`
)

// The life of one demo: workers are added and removed, one is killed, the NATS node that leads the bucket is
// killed, and then the token. Codes are resolved all the time, and WeChat is called only as often as these events
// explain.
func TestNothingIsLostWhileTheFleetChanges(t *testing.T) {
	t.Parallel()
	s := newStack(t, "DEMO_LIFE=2h")
	s.up(2)
	for service, want := range map[string]int{"nats-1": 1, "nats-2": 1, "nats-3": 1, "worker": 2, "simulator": 1} {
		if n := s.healthy(service); n != want {
			t.Errorf("%d healthy %s, want %d", n, service, want)
		}
	}
	reply, headers := s.request("service", play, "wechat.code.resolve."+demoAppID, sample)
	for _, want := range []string{`"errcode":0`, `"code":"8"`} {
		if !strings.Contains(reply, want) {
			t.Errorf("nats req prints %s, want %s", reply, want)
		}
	}
	if strings.Contains(headers, messages.HeaderErrorCode) {
		t.Errorf("nats req prints the headers of an error: %s", headers)
	}
	operator := messages.NewClient(s.connect("operator", play), "")
	js, err := jetstream.New(s.connect("worker", play))
	if err != nil {
		t.Fatal(err)
	}
	l := startLoad(s, s.connect("service", play), demoAppID)

	s.up(4)
	names := map[string]bool{}
	s.eventually("four workers that answer", func() bool {
		st, err := operator.Status(s.ctx, messages.StatusRequest{})
		if err == nil {
			names[st.Worker] = true
		}
		return len(names) == 4
	})
	l.awaitProgress("after scaling up")

	s.kill(s.containers("worker")[0])
	l.awaitProgress("after a worker was killed")

	leader := leaderOf(s, js)
	s.kill(s.containers(leader)[0])
	t.Logf("killed a worker, and %s, which led the bucket", leader)
	l.awaitProgress("after a NATS node was killed")
	s.eventually("another leader of the bucket", func() bool {
		now := leaderOf(s, js)
		return now != "" && now != leader
	})
	old, err := l.reader.Get(demoAppID, messages.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	s.control("/revoke", map[string]string{"token": old.Value}, nil)
	l.awaitProgress("after its token was killed")
	s.eventually("a new token, with two of three NATS nodes", func() bool {
		now, err := l.reader.Get(demoAppID, messages.AccessToken)
		return err == nil && now.Generation == old.Generation+1
	})

	s.up(4) // starts both again; a node is healthy once it is as current as the others
	if n := s.healthy(leader); n != 1 {
		t.Errorf("%s is not healthy", leader)
	}
	s.eventually("three current replicas of the bucket", func() bool { return currentReplicas(s, js) == 3 })
	l.awaitProgress("after the worker and the node were started again")

	// The upgrade of NATS in docs/deploy.md: one node at a time.
	for _, node := range []string{"nats-1", "nats-2", "nats-3"} {
		s.compose("up", "--detach", "--wait", "--no-deps", "--force-recreate", node)
		l.awaitProgress("after " + node + " was recreated")
	}
	// The upgrade of the workers: new ones are started beside the old ones, then the old ones are stopped.
	// Another setting causes it as another image does.
	before := ids(s.containers("worker"))
	s.env = append(s.env, "WXKEEPER_LOG_LEVEL=debug")
	s.up(5)
	if n := s.healthy("worker"); n != 5 {
		t.Errorf("%d healthy workers, want four old ones and a new one", n)
	}
	s.compose("--profile=demo", "up", "--detach", "--wait", "--no-build", "--scale=worker=1")
	after := ids(s.containers("worker"))
	if len(after) != 1 {
		t.Errorf("%d containers of workers after the upgrade, want 1", len(after))
	}
	for id := range after {
		if before[id] {
			t.Errorf("the worker after the upgrade is %s, one of before", id)
		}
	}
	if n := s.healthy("worker"); n != 1 {
		t.Errorf("%d healthy workers after scaling down, want 1", n)
	}
	l.awaitProgress("after scaling down")
	l.stop()
	l.done.Wait()
	l.mustLoseNothing("at the end")

	calls := s.calls(demoAppID)
	t.Logf("%d answers, %d repeated attempts: %v", l.answered.Load(), l.retried.Load(), calls)
	checkCalls(t, calls)

	// A stop is clean: every container exits by itself within its grace period.
	s.compose("--profile=demo", "stop")
	for _, service := range []string{"worker", "simulator"} {
		for _, c := range s.containers(service) {
			if c.State != "exited" || c.ExitCode != 0 {
				t.Errorf("after the stop: %+v", c)
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

// checkCalls compares the calls with the events. Every credential lives for two hours, so each ticket is fetched
// once, and the token twice, because the first one was killed. If WeChat returns the dead token again, a third
// call forces a new one.
func checkCalls(t *testing.T, calls map[string]counters) {
	t.Helper()
	token, ticket, code := calls["stable_token"], calls["getticket"], calls["tickettocode"]
	if token.Minted != 2 {
		t.Errorf("%d tokens were minted, want 2", token.Minted)
	}
	if token.Calls > 3 {
		t.Errorf("%d calls of stable_token, want at most 3", token.Calls)
	}
	if token.MaxConcurrent != 1 {
		t.Errorf("%d calls of stable_token at once, want 1", token.MaxConcurrent)
	}
	if ticket.Calls != 2 {
		t.Errorf("%d calls of getticket, want 2", ticket.Calls)
	}
	delete(code.Errcodes, 0)
	refusals := slices.Collect(maps.Keys(code.Errcodes))
	if diff := cmp.Diff([]int{40001}, refusals); diff != "" {
		t.Errorf("refusals of tickettocode (-only the dead token +got):\n%s", diff)
	}
}

// cluster returns the replicas of the credential bucket, or nil if no leader answers now.
func cluster(s *stack, js jetstream.JetStream) *jetstream.ClusterInfo {
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second) // without a leader a request gets no answer
	defer cancel()
	stream, err := js.Stream(ctx, "KV_wechat")
	if err != nil {
		return nil
	}
	return stream.CachedInfo().Cluster
}

// leaderOf returns the NATS node that leads the credential bucket. It is empty if none is known.
func leaderOf(s *stack, js jetstream.JetStream) string {
	c := cluster(s, js)
	if c == nil {
		return ""
	}
	return c.Leader
}

// currentReplicas counts the replicas of the credential bucket that hold all of its messages.
func currentReplicas(s *stack, js jetstream.JetStream) int {
	c := cluster(s, js)
	if c == nil {
		return 0
	}
	n := 1
	for _, r := range c.Replicas {
		if r.Current && !r.Offline {
			n++
		}
	}
	return n
}

// Without the profile demo the workers call the real WeChat, for which an account is missing.
func TestWithoutAnAccountComposePrintsWhatIsMissing(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	out, err := s.try("up", "--detach", "--no-build")
	var exit *exec.ExitError
	const service = "account-configured-or-profile-demo"
	want := `service "` + service + `" didn't complete successfully: exit 1`
	if !errors.As(err, &exit) || !strings.HasSuffix(strings.TrimSpace(out), want) {
		t.Errorf("docker compose up --detach: %v\n%s", err, out)
	}
	logs := s.compose("logs", service)
	for _, want := range []string{
		"No account is configured: set WECHAT_APPID", "docker compose --profile demo up",
	} {
		if !strings.Contains(logs, want) {
			t.Errorf("%s prints %q, want %q", service, logs, want)
		}
	}
	for _, c := range s.containers("worker") {
		if c.State == "running" {
			t.Errorf("a worker runs without an account: %+v", c)
		}
	}
}

// With an own account no setting of the demo is left. Its secret is in a file that only its owner can read, and its
// passwords are digits, which NATS must not read as numbers.
func TestOwnAccountReplacesTheDemoAccount(t *testing.T) {
	t.Parallel()
	const appid, secret, password = "wx0123456789abcdef", "fedcba9876543210fedcba9876543210", "1234567890"
	secrets := t.TempDir()
	if err := os.WriteFile(filepath.Join(secrets, "shop.secret"), []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStack(t, "WECHAT_APPID="+appid, "WECHAT_SECRET_FILE=secrets/shop.secret", "SECRETS_DIR="+secrets,
		fmt.Sprintf("WORKER_USER=%d:%d", os.Getuid(), os.Getgid()), "WECHAT_TICKETS=none",
		"NATS_WORKER_PASSWORD=1"+password, "NATS_SERVICE_PASSWORD=2"+password, "NATS_OPERATOR_PASSWORD=3"+password,
		"NATS_CLUSTER_PASSWORD=42",
		"WECHAT_API_URL=http://simulator:8090", "WECHAT_API_INSECURE=true") // a test must not call api.weixin.qq.com
	s.compose("--profile=demo", "up", "--detach", "--wait", "--no-build", "simulator")
	s.control("/accounts", map[string]string{"appid": appid, "secret": secret}, nil)
	s.up(1)
	reply, headers := s.request("service", "2"+password, "wechat.code.resolve."+appid, sample)
	if !strings.Contains(reply, `"code":"8"`) {
		t.Errorf("nats req: %s%s", headers, reply)
	}
	calls := s.calls(appid)
	if n := calls["stable_token"].Calls; n != 1 {
		t.Errorf("%d calls of stable_token, want 1", n)
	}
	if n := calls["getticket"].Calls; n != 0 {
		t.Errorf("%d calls of getticket, want none", n)
	}
	if calls := s.calls(demoAppID); len(calls) != 0 {
		t.Errorf("calls for the demo account: %v", calls)
	}
	logs := s.compose("logs", "worker")
	for _, hidden := range []string{secret, password} {
		if strings.Contains(logs, hidden) {
			t.Errorf("the log shows a secret:\n%s", logs)
		}
	}
	// The verbs run as the users of the account APPS.
	for want, args := range map[string][]string{
		"fresh  " + appid: {"operator", "status"}, `"code":"8"`: {"service", "resolve", "--appid=" + appid,
			"oiV2luCau8Cx0TMOy9lvZSLqRcKc", "6cb4bc95e1f1abc97034cbe8fd484989"},
	} {
		if out := s.compose(append([]string{"run", "--rm", "-T"}, args...)...); !strings.Contains(out, want) {
			t.Errorf("wxkeeper %s: %s", args, out)
		}
	}
	if out := s.compose("exec", "-T", "worker", "wxkeeper", "check"); strings.Contains(out, "fail  ") {
		t.Errorf("wxkeeper check: %s", out)
	}
}

// With an account, the passwords of this repository would protect it from nobody.
func TestAccountWithoutPasswordsDoesNotStart(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	passwords := strings.Fields("NATS_WORKER_PASSWORD NATS_SERVICE_PASSWORD NATS_OPERATOR_PASSWORD NATS_CLUSTER_PASSWORD")
	clean := s.env
	for _, account := range []string{"WECHAT_APPID=wx1", "WECHAT_ACCOUNTS_FILE=secrets/accounts.json"} {
		for i, missing := range passwords {
			s.env = append(slices.Clone(clean), account)
			for j, name := range passwords {
				if i != j {
					s.env = append(s.env, name+"=1234")
				}
			}
			out, err := s.try("up", "--detach", "--no-build")
			if err == nil || !strings.Contains(out, missing+" is missing a value: set NATS_") {
				t.Errorf("%s without %s: %v\n%s", account, missing, err, out)
			}
		}
	}
	s.env = clean
	for _, service := range []string{"nats-1", "worker"} {
		if c := s.containers(service); len(c) > 0 {
			t.Errorf("there is a container of %s: %+v", service, c)
		}
	}
}

// A container in the network of the clients reaches the port of NATS, and neither the routes nor the monitoring.
// No password of a client opens a route, and a service reaches only what its list has.
func TestOtherContainersReachOnlyThePortOfClients(t *testing.T) {
	t.Parallel()
	s := newStack(t, "DEMO_LIFE=2h")
	s.up(1)
	shell := strings.Fields(s.compose("config", "--images", "nats-1"))[0]
	reach := func(network, host, port string, want bool) {
		t.Helper()
		out, err := exec.CommandContext(s.ctx, "docker", "run", "--rm", "--network="+s.project+"_"+network,
			"--entrypoint=nc", shell, "-w", "3", host, port).CombinedOutput()
		if (err == nil) != want {
			t.Errorf("port %s of %s in the network %s: %v\n%s", port, host, network, err, out)
		}
	}
	for _, node := range []string{"1", "2", "3"} {
		reach("default", "nats-"+node, "4222", true)
		reach("default", "nats-"+node, "6222", false)
		reach("default", "nats-"+node, "8222", false)
	}
	reach("routes", "route-1", "6222", true)
	reach("routes", "route-1", "8222", false)
	service := s.connect("service", play)
	for _, subject := range []string{"$JS.API.INFO", "$JS.API.STREAM.INFO.KV_wechat", "$SRV.PING", "wechat.status"} {
		m, err := service.Request(subject, nil, 10*time.Second)
		if err == nil {
			t.Errorf("%s is answered: %s", subject, m.Data)
		}
	}
	// A reply of the workers goes nowhere beyond the account of the service.
	js, err := jetstream.New(s.connect("worker", play))
	if err != nil {
		t.Fatal(err)
	}
	operator := messages.NewClient(s.connect("operator", play), "")
	s.eventually("three fresh credentials, and nothing more to write", func() bool {
		st, err := operator.Status(s.ctx, messages.StatusRequest{})
		return err == nil && len(st.Credentials) == 3 && !slices.ContainsFunc(st.Credentials,
			func(c messages.CredentialStatus) bool { return c.Reason != messages.ReasonFresh })
	})
	before := streamOf(s, js)
	for _, reply := range []string{
		"$JS.API.STREAM.DELETE.KV_wechat", "$JS.API.STREAM.PURGE.KV_wechat", "$KV.wechat.wx-demo.access_token",
		"wechat.credential.refresh", "$SRV.PING",
	} {
		if err := service.PublishRequest("wechat.credential.get."+demoAppID, reply, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 { // requests after the attack, on which any worker answers
		s.request("service", play, "wechat.credential.get."+demoAppID, "{}")
	}
	if after := streamOf(s, js); !after.Created.Equal(before.Created) || after.State.LastSeq != before.State.LastSeq {
		t.Errorf("replies have changed the stream: before %+v, after %+v", before.State, after.State)
	}
	if _, err := nats.Connect(s.natsURL, nats.Timeout(10*time.Second)); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a client without a user: %v", err)
	}
}

// streamOf returns the stream of the credentials.
func streamOf(s *stack, js jetstream.JetStream) *jetstream.StreamInfo {
	s.t.Helper()
	stream, err := js.Stream(s.ctx, "KV_wechat")
	if err != nil {
		s.t.Fatal(err)
	}
	return stream.CachedInfo()
}

// The image has the root certificates for TLS to api.weixin.qq.com, one binary that knows its version, a user
// that is not root, and no shell.
func TestImageHasOnlyTheBinaryAndRootCertificates(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	out, err := exec.CommandContext(s.ctx, "docker", "image", "inspect", image).Output()
	if err != nil {
		t.Fatal(err)
	}
	var inspected []struct {
		Config struct{ User string }
	}
	if err := json.Unmarshal(out, &inspected); err != nil || len(inspected) != 1 {
		t.Fatalf("docker image inspect: %v\n%s", err, out)
	}
	if user := inspected[0].Config.User; user != "65532:65532" {
		t.Errorf("the user of the image is %q", user)
	}
	out, err = exec.CommandContext(s.ctx, "docker", "run", "--rm", "--network=none", image, "version").CombinedOutput()
	line := strings.TrimSpace(string(out))
	if err != nil || !strings.HasPrefix(line, "wxkeeper "+version+" ") || !strings.HasSuffix(line, " commit "+commit) {
		t.Errorf("wxkeeper version: %v\n%s", err, out)
	}
	s.compose("create", "--no-build", "worker")
	archive, err := exec.CommandContext(s.ctx, "docker", "export", s.containers("worker")[0].Name).Output()
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
		if h.Typeflag == tar.TypeReg && h.Size > 0 { // the engine adds empty files, on which it mounts its own
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			files[h.Name] = b
		}
	}
	const certificates, binary = "etc/ssl/certs/ca-certificates.crt", "usr/local/bin/wxkeeper"
	if diff := cmp.Diff([]string{certificates, binary}, slices.Sorted(maps.Keys(files))); diff != "" {
		t.Errorf("files of the image (-want +got):\n%s", diff)
	}
	if !bytes.Contains(files[certificates], []byte("BEGIN CERTIFICATE")) {
		t.Error("the image has no root certificates: no TLS to api.weixin.qq.com")
	}
	if !bytes.HasPrefix(files[binary], []byte("\x7fELF")) {
		t.Error("the image has no wxkeeper binary")
	}
}
