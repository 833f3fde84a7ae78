package config_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/config"
)

// forgetting is the variable with which the test binary is the process that forgets.
const forgetting = "TEST_FORGETTING"

// forgotten is what the process sees after it has forgotten its secrets.
type forgotten struct {
	Secrets     []string // of the loaded accounts
	Environment []string // names of variables that contain the canary
	Kernel      []string // the same for what the kernel shows to others
	Inherited   string   // a variable that is no secret
}

func forget() {
	c, err := config.Load(nil)
	if err == nil {
		err = config.ForgetSecrets()
	}
	accounts, err2 := c.Accounts()
	if err != nil || err2 != nil {
		panic(fmt.Sprint(err, err2))
	}
	f := forgotten{Inherited: os.Getenv("WXKEEPER_BUCKET")}
	for _, a := range accounts {
		f.Secrets = append(f.Secrets, a.Secret.Reveal())
	}
	named := func(variables []string) (names []string) {
		for _, v := range variables {
			if name, value, _ := strings.Cut(v, "="); strings.Contains(value, canary) {
				names = append(names, name)
			}
		}
		return names
	}
	f.Environment = named(os.Environ())
	kernel, _ := os.ReadFile("/proc/self/environ")
	f.Kernel = named(strings.Split(string(kernel), "\x00"))
	_ = json.NewEncoder(os.Stdout).Encode(f)
}

// The environment that a process was started with stays readable in /proc, whatever the process unsets.
func TestSecretsLeaveTheEnvironmentAndStayInTheConfiguration(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = []string{
		forgetting + "=1", "WECHAT_APPID=wx1", "WECHAT_SECRET=" + canary + "1",
		"WECHAT_ACCOUNTS_0_APPID=wx2", "WECHAT_ACCOUNTS_0_SECRET=" + canary + "2",
		"WECHAT_ACCOUNTS_1_APPID=wx3", "WECHAT_ACCOUNTS_1_SECRET=" + canary + "3",
		"NATS_URL=nats://" + canary + "@h", "NATS_USER=u", "NATS_PASSWORD=" + canary + "=4", "WXKEEPER_BUCKET=b" + canary,
		"HTTPS_PROXY=http://u:" + canary + "@h:1", "http_proxy=" + canary + "@h:1", "NO_PROXY=" + canary + ".example",
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got forgotten
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := forgotten{
		Secrets:     []string{canary + "1", canary + "2", canary + "3"},
		Environment: []string{"WXKEEPER_BUCKET", "NO_PROXY"}, Inherited: "b" + canary,
	}
	if runtime.GOOS == "linux" {
		want.Kernel = []string{"WXKEEPER_BUCKET", "NO_PROXY"}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}
