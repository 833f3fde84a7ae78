package kv

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// fileReader makes a Reader with a cache file, and what it tells as trouble until it runs.
func fileReader(t *testing.T, cfg ReaderConfig) (*Reader, []error) {
	t.Helper()
	var troubles []error
	cfg.OnError = func(err error) { troubles = append(troubles, err) }
	if cfg.Source == nil {
		cfg.Source = scripted{}
	}
	r, err := NewReader(nil, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r, troubles
}

// writeFile writes a cache file as another process would have left it.
func writeFile(t *testing.T, file, bucket string, mode os.FileMode, credentials ...messages.Credential) {
	t.Helper()
	body, err := json.Marshal(cached{Bucket: bucket, Credentials: credentials})
	if err == nil {
		err = os.WriteFile(file, body, mode)
	}
	if err == nil {
		err = os.Chmod(file, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// awaitFile waits until a cache file has a generation.
func awaitFile(t *testing.T, file string, generation uint64) {
	t.Helper()
	c := &cache{file: file, bucket: messages.DefaultBucket}
	ctx := testContext(t)
	for ctx.Err() == nil {
		credentials, err := c.load()
		if err == nil && len(credentials) == 1 && credentials[0].Generation == generation {
			return
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	t.Fatalf("generation %d does not come into the file", generation)
}

func TestConsumerStartsFromItsFileWhileNATSIsAway(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			s := newStore(t, srv, "w")
			cfg.CacheFile = filepath.Join(t.TempDir(), "credentials.json")
			publish(t, s, credential(1, time.Hour))
			first, err := NewReader(srv.Connect(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			stop := runReader(t, first)
			awaitFile(t, cfg.CacheFile, 1) // at once, so that a process that is killed has it
			publish(t, s, credential(2, time.Hour))
			if _, err := first.WaitNewer(testContext(t), "wx1", messages.AccessToken, 1); err != nil {
				t.Fatal(err)
			}
			stop()
			awaitFile(t, cfg.CacheFile, 2)
			info, err := os.Stat(cfg.CacheFile)
			if err != nil || info.Mode() != 0o600 {
				t.Errorf("the file's mode is %v, %v; want 0600", info.Mode(), err)
			}
			srv.Stop()
			nc, err := nats.Connect(srv.URL(), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			second, err := NewReader(nc, cfg)
			if err != nil {
				t.Fatal(err)
			}
			runReader(t, second)
			if v, err := second.AccessToken("wx1"); err != nil || v != credential(2, time.Hour).Value || second.Health().Ready {
				t.Errorf("while NATS is away: the value of generation 2 is %t, %v; the health %+v", v == credential(2, 1).Value, err, second.Health())
			}
			srv.Restart()
			publishSoon(t, s, credential(3, time.Hour))
			if _, err := second.WaitNewer(testContext(t), "wx1", messages.AccessToken, 2); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFileThatCannotBeTrustedIsNotUsed(t *testing.T) {
	t.Parallel()
	good := credential(1, time.Hour)
	for name, tt := range map[string]struct {
		write func(t *testing.T, file string)
		says  string
	}{
		"others may read it": {func(t *testing.T, file string) {
			t.Helper()
			writeFile(t, file, messages.DefaultBucket, 0o640, good)
		}, "it must be 0600"},
		"others may write it": {func(t *testing.T, file string) {
			t.Helper()
			writeFile(t, file, messages.DefaultBucket, 0o602, good)
		}, "it must be 0600"},
		"cut off": {func(t *testing.T, file string) {
			t.Helper()
			if err := os.WriteFile(file, []byte(`{"bucket":"wechat","credentials":[{"appid":"wx1","va`), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not the JSON"},
		"of another bucket": {func(t *testing.T, file string) {
			t.Helper()
			writeFile(t, file, "other", 0o600, good)
		}, `of bucket "other"`},
		"too large": {func(t *testing.T, file string) {
			t.Helper()
			writeFile(t, file, messages.DefaultBucket, 0o600, good)
			if err := os.Truncate(file, cacheLimit+1); err != nil { // it takes no room: what is added is a hole
				t.Fatal(err)
			}
		}, "bytes"},
		"a folder": {func(t *testing.T, file string) {
			t.Helper()
			if err := os.Mkdir(file, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "credentials.json")
			tt.write(t, file)
			cfg := ReaderConfig{CacheFile: file}
			var troubles []error
			cfg.OnError = func(err error) { troubles = append(troubles, err) }
			cfg.Source = scripted{}
			r, err := NewReader(nil, cfg)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Get("wx1", messages.AccessToken); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%v, want ErrNotFound", err)
			}
			if len(troubles) != 1 || !strings.Contains(troubles[0].Error(), tt.says) || strings.Contains(troubles[0].Error(), good.Value) {
				t.Errorf("the trouble is %v, want that it is %s", troubles, tt.says)
			}
			if name == "a folder" {
				return
			}
			r.Apply(credential(2, time.Hour))
			r.save()
			if r, troubles := fileReader(t, cfg); len(troubles) > 0 || r.Held("wx1", messages.AccessToken) == nil {
				t.Errorf("the next write has not put it right: %v", troubles)
			}
		})
	}
}

func TestOnlyWhatIsValidAndFollowedIsTakenFromTheFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "credentials.json")
	dead, broken, other, ahead := credential(1, time.Hour), credential(1, time.Hour), credential(1, time.Hour), credential(1, time.Hour)
	dead.Kind, dead.ObtainedAt, dead.ExpiresAt = messages.JSAPITicket, dead.ObtainedAt.Add(-time.Hour), time.Now()
	broken.Kind, broken.Value = messages.WXCardTicket, "a\nb"
	// It would be newer than all that comes, also after a bucket made anew.
	ahead.Kind, ahead.ObtainedAt, ahead.ExpiresAt = messages.JSAPITicket, ahead.ObtainedAt.Add(25*time.Hour), ahead.ExpiresAt.Add(25*time.Hour)
	other.AppID = "wx2"
	writeFile(t, file, messages.DefaultBucket, 0o600, credential(1, time.Hour), dead, broken, other, ahead)
	r, troubles := fileReader(t, ReaderConfig{CacheFile: file, AppIDs: []string{"wx1"}})
	if h := r.Health(); len(troubles) > 0 || h.Valid != 1 || h.Expired != 0 {
		t.Errorf("%+v is taken, %v; want one credential", h, troubles)
	}
	if _, err := r.AccessToken("wx1"); err != nil {
		t.Error(err)
	}
}

// What the bucket has is newer than the file, also where the generations began again while the consumer was away.
func TestBucketIsBelievedMoreThanTheFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "credentials.json")
	old := credential(7, time.Hour)
	old.ObtainedAt = old.ObtainedAt.Add(-time.Minute)
	writeFile(t, file, messages.DefaultBucket, 0o600, old)
	for name, tt := range map[string]struct {
		generation uint64
		earlier    time.Duration
		want       uint64
	}{
		"the next": {8, 0, 8}, "begun again": {1, 0, 1}, "a backup": {5, time.Hour, 7},
	} {
		r, _ := fileReader(t, ReaderConfig{CacheFile: file})
		c := credential(tt.generation, time.Hour)
		c.ObtainedAt = c.ObtainedAt.Add(-tt.earlier)
		r.told(put(t, c))
		if got, err := r.Get("wx1", messages.AccessToken); err != nil || got.Generation != tt.want {
			t.Errorf("%s: generation %d, %v; want %d", name, got.Generation, err, tt.want)
		}
	}
}

func TestFileIsWholeAtAnyMoment(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "credentials.json")
	r, _ := fileReader(t, ReaderConfig{CacheFile: file})
	r.Apply(credential(1, time.Hour))
	r.save()
	var writing sync.WaitGroup
	writing.Go(func() {
		for generation := uint64(2); generation < 200; generation++ {
			r.Apply(credential(generation, time.Hour))
			r.save()
		}
	})
	for range 200 {
		if credentials, err := r.cache.load(); err != nil || len(credentials) != 1 {
			t.Fatalf("%d credentials, %v", len(credentials), err)
		}
	}
	writing.Wait()
	if files, err := os.ReadDir(filepath.Dir(file)); err != nil || len(files) != 1 {
		t.Errorf("the folder has %v, %v", files, err)
	}
}

func TestWriteLeavesAloneWhatALinkInItsPlaceLeadsTo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, victim := filepath.Join(dir, "credentials.json"), filepath.Join(dir, "victim")
	err := os.WriteFile(victim, []byte("mine"), 0o600)
	if err == nil {
		err = os.Symlink(victim, file+".next")
	}
	if err != nil {
		t.Fatal(err)
	}
	r, _ := fileReader(t, ReaderConfig{CacheFile: file})
	r.Apply(credential(1, time.Hour))
	r.save()
	if body, err := os.ReadFile(victim); err != nil || string(body) != "mine" {
		t.Errorf("what the link leads to was written, %v", err)
	}
	if info, err := os.Lstat(file); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the file is %v, %v", info, err)
	}
}

// A process that was killed while it wrote leaves one behind.
func TestWriteReplacesWhatAnEarlierOneHasLeftBehind(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "credentials.json")
	if err := os.WriteFile(file+".next", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, _ := fileReader(t, ReaderConfig{CacheFile: file})
	r.Apply(credential(1, time.Hour))
	r.save()
	if credentials, err := r.cache.load(); err != nil || len(credentials) != 1 {
		t.Errorf("%d credentials, %v", len(credentials), err)
	}
}

func TestFailedWriteIsTriedAgain(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]func(stop func()){
		"with the next one": func(func()) { sleep(cacheEvery); synctest.Wait() },
		"at the end":        func(stop func()) { stop() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "credentials.json")
				if err := os.Mkdir(file, 0o700); err != nil { // in the way
					t.Fatal(err)
				}
				var troubles []error
				r, events, stop := scriptedReader(t, ReaderConfig{CacheFile: file, OnError: func(err error) { troubles = append(troubles, err) }})
				defer stop()
				troubles = nil // that it is not used
				events <- put(t, credential(1, time.Hour))
				synctest.Wait()
				sleep(2*cacheEvery + time.Second)
				synctest.Wait()
				if len(troubles) != 3 {
					t.Errorf("in 21 s, these troubles are told: %v", troubles)
				}
				if files, err := os.ReadDir(filepath.Dir(file)); err != nil || len(files) != 1 {
					t.Errorf("the folder has %v, %v", files, err)
				}
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
				next(stop)
				if credentials, err := r.cache.load(); err != nil || len(credentials) != 1 {
					t.Errorf("%d credentials, %v", len(credentials), err)
				}
			})
		})
	}
}

// A consumer of thousands of accounts would write without end otherwise.
func TestFileIsWrittenAtMostEveryTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "credentials.json")
		_, events, stop := scriptedReader(t, ReaderConfig{CacheFile: file})
		saved := map[string]bool{}
		read := func() (what cached) {
			body, err := os.ReadFile(file)
			if err == nil {
				err = json.Unmarshal(body, &what)
			}
			if err != nil {
				t.Fatal(err)
			}
			saved[what.SavedAt.String()] = true
			return what
		}
		for generation := uint64(1); generation <= 350; generation++ { // for 35 s
			events <- put(t, credential(generation, time.Hour))
			synctest.Wait()
			read()
			<-time.After(100 * time.Millisecond)
		}
		if len(saved) != 4 {
			t.Errorf("written %d times in 35 s, want 4", len(saved))
		}
		stop()
		if what := read(); len(what.Credentials) != 1 || what.Credentials[0].Generation != 350 {
			t.Errorf("at the end the file has %v", what.Credentials)
		}
	})
}
