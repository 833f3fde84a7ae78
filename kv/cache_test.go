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

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

// cacheFile is the path of a cache file that does not exist yet.
func cacheFile(tb testing.TB) string {
	tb.Helper()
	return filepath.Join(tb.TempDir(), "credentials.json")
}

// fileReader makes a Reader with a cache file, and returns the errors that OnError received.
func fileReader(tb testing.TB, cfg ReaderConfig) (*Reader, []error) {
	tb.Helper()
	var problems []error
	cfg.OnError = func(err error) { problems = append(problems, err) }
	r := idleReader(tb, cfg)
	return r, problems
}

// writeFile writes a cache file as another process would have left it.
func writeFile(tb testing.TB, file, bucket string, mode os.FileMode, credentials ...messages.Credential) {
	tb.Helper()
	body, err := json.Marshal(cached{Bucket: bucket, Credentials: credentials})
	if err == nil {
		err = os.WriteFile(file, body, mode)
	}
	if err == nil {
		err = os.Chmod(file, mode) // whatever the umask is
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// checkFile checks that a cache file has one credential of a generation.
func checkFile(tb testing.TB, file string, generation uint64) {
	tb.Helper()
	credentials, err := (&cache{file: file, bucket: messages.DefaultBucket}).load()
	if err != nil {
		tb.Fatal(err)
	}
	var generations []uint64
	for _, c := range credentials {
		generations = append(generations, c.Generation)
	}
	if diff := cmp.Diff([]uint64{generation}, generations); diff != "" {
		tb.Errorf("the generations in the file: %s", diff)
	}
}

// awaitFile waits until a cache file has one credential of a generation.
func awaitFile(tb testing.TB, file string, generation uint64) {
	tb.Helper()
	c := &cache{file: file, bucket: messages.DefaultBucket}
	for ctx := testContext(tb); ctx.Err() == nil; {
		credentials, err := c.load()
		if err == nil && len(credentials) == 1 && credentials[0].Generation == generation {
			return
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			tb.Fatal(err)
		}
	}
	tb.Fatalf("the file does not get generation %d", generation)
}

// checkOnlyFile checks that a folder has only one file.
func checkOnlyFile(tb testing.TB, file string) {
	tb.Helper()
	files, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		tb.Fatal(err)
	}
	if len(files) != 1 || files[0].Name() != filepath.Base(file) {
		tb.Errorf("the folder has %v, want only the cache file", files)
	}
}

func TestConsumerStartsFromItsFileWhileNATSIsAway(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			p := newPublisher(t, srv)
			cfg.CacheFile = cacheFile(t)
			p.publish(credential(1, time.Hour))
			first, err := NewReader(srv.Connect(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			stop := runReader(t, first)
			awaitFile(t, cfg.CacheFile, 1) // before the end, so that a process that is killed has the file
			p.publish(credential(2, time.Hour))
			awaitToken(t, first, 1)
			stop()
			checkFile(t, cfg.CacheFile, 2)
			info, err := os.Stat(cfg.CacheFile)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != 0o600 {
				t.Errorf("the mode of the file is %v, want 0600", info.Mode())
			}

			srv.Stop()
			nc, err := nats.Connect(srv.URL(), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
				nats.ReconnectWait(20*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			second, err := NewReader(nc, cfg)
			if err != nil {
				t.Fatal(err)
			}
			runReader(t, second)
			checkGeneration(t, second, "while NATS is not available", 2)
			if second.Health().Ready {
				t.Error("the Reader is ready without a snapshot")
			}
			srv.Restart()
			p.publish(credential(3, time.Hour))
			awaitToken(t, second, 2)
		})
	}
}

func TestFileThatCannotBeTrustedIsNotUsed(t *testing.T) {
	t.Parallel()
	good := credential(1, time.Hour)
	for name, tt := range map[string]struct {
		write func(t *testing.T, file string)
		text  string // of the error
	}{
		"others may read it": {func(t *testing.T, file string) {
			t.Helper()
			writeFile(t, file, messages.DefaultBucket, 0o640, good)
		}, "it must be 0600"},
		"others may write it": {func(t *testing.T, file string) {
			t.Helper()
			writeFile(t, file, messages.DefaultBucket, 0o602, good)
		}, "it must be 0600"},
		"truncated": {func(t *testing.T, file string) {
			t.Helper()
			half := []byte(`{"bucket":"wechat","credentials":[{"appid":"wx1","va`)
			if err := os.WriteFile(file, half, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not the JSON"},
		"of another bucket": {func(t *testing.T, file string) {
			t.Helper()
			writeFile(t, file, "other", 0o600, good)
		}, `belongs to bucket "other"`},
		"too large": {func(t *testing.T, file string) {
			t.Helper()
			writeFile(t, file, messages.DefaultBucket, 0o600, good)
			if err := os.Truncate(file, cacheLimit+1); err != nil { // the file is sparse: it takes no space
				t.Fatal(err)
			}
		}, "bytes, more than"},
		"a folder": {func(t *testing.T, file string) {
			t.Helper()
			if err := os.Mkdir(file, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := ReaderConfig{CacheFile: cacheFile(t)}
			tt.write(t, cfg.CacheFile)
			r, problems := fileReader(t, cfg)
			if _, err := r.Get("wx1", messages.AccessToken); !errors.Is(err, ErrNotFound) {
				t.Errorf("Get returns %v, want ErrNotFound", err)
			}
			if len(problems) != 1 {
				t.Fatalf("OnError received %v, want one error", problems)
			}
			text := problems[0].Error()
			if !strings.Contains(text, tt.text) {
				t.Errorf("the error is %q, want one with %q", text, tt.text)
			}
			if strings.Contains(text, good.Value) {
				t.Errorf("the error shows the value: %q", text)
			}
			if name == "a folder" {
				return // the next write cannot replace it
			}
			put(t, r, credential(2, time.Hour))
			r.save()
			again, problems := fileReader(t, cfg)
			if len(problems) > 0 {
				t.Errorf("after the next write, OnError received %v", problems)
			}
			checkGeneration(t, again, "after the next write", 2)
		})
	}
}

func TestOnlyWhatIsValidAndFollowedIsTakenFromTheFile(t *testing.T) {
	t.Parallel()
	good := credential(1, time.Hour)
	expired, broken, ahead, other := good, good, good, good
	expired.Kind = messages.JSAPITicket
	expired.ObtainedAt, expired.ExpiresAt = expired.ObtainedAt.Add(-time.Hour), time.Now()
	broken.Kind, broken.Value = messages.WXCardTicket, "a\nb"
	// It would count as newer than everything in the bucket, also after the bucket was recreated.
	ahead.Kind = messages.JSAPITicket
	ahead.ObtainedAt, ahead.ExpiresAt = ahead.ObtainedAt.Add(25*time.Hour), ahead.ExpiresAt.Add(25*time.Hour)
	other.AppID = "wx2"
	file := cacheFile(t)
	writeFile(t, file, messages.DefaultBucket, 0o600, good, expired, broken, ahead, other)
	r, problems := fileReader(t, ReaderConfig{CacheFile: file, AppIDs: []string{"wx1"}})
	if len(problems) > 0 {
		t.Errorf("OnError received %v", problems)
	}
	h := r.Health()
	if h.Valid != 1 {
		t.Errorf("%d valid credentials were taken, want 1", h.Valid)
	}
	if h.Expired != 0 {
		t.Errorf("%d expired credentials were taken, want 0", h.Expired)
	}
	checkGeneration(t, r, "at the start", 1)
}

// The bucket has newer credentials than the file, also if the generations began again while the service was
// stopped.
func TestBucketIsPreferredToTheFile(t *testing.T) {
	t.Parallel()
	file := cacheFile(t)
	old := credential(7, time.Hour)
	old.ObtainedAt = old.ObtainedAt.Add(-time.Minute)
	writeFile(t, file, messages.DefaultBucket, 0o600, old)
	for name, tt := range map[string]struct {
		generation uint64
		earlier    time.Duration
		want       uint64
	}{
		"the next generation":           {8, 0, 8},
		"the generations began again":   {1, 0, 1},
		"the bucket is an older backup": {5, time.Hour, 7},
	} {
		r, _ := fileReader(t, ReaderConfig{CacheFile: file})
		c := credential(tt.generation, time.Hour)
		c.ObtainedAt = c.ObtainedAt.Add(-tt.earlier)
		put(t, r, c)
		checkGeneration(t, r, name, tt.want)
	}
}

func TestFileIsWholeAtAnyMoment(t *testing.T) {
	t.Parallel()
	file := cacheFile(t)
	r, _ := fileReader(t, ReaderConfig{CacheFile: file})
	put(t, r, credential(1, time.Hour))
	r.save()
	var writing sync.WaitGroup
	writing.Go(func() {
		for generation := uint64(2); generation < 200; generation++ {
			put(t, r, credential(generation, time.Hour))
			r.save()
		}
	})
	for range 200 {
		credentials, err := r.cache.load()
		if err != nil {
			t.Fatal(err)
		}
		if len(credentials) != 1 {
			t.Fatalf("the file has %d credentials, want 1", len(credentials))
		}
	}
	writing.Wait()
	checkOnlyFile(t, file)
}

func TestWriteDoesNotFollowALink(t *testing.T) {
	t.Parallel()
	file := cacheFile(t)
	target := filepath.Join(filepath.Dir(file), "target")
	err := os.WriteFile(target, []byte("mine"), 0o600)
	if err == nil {
		err = os.Symlink(target, file+".next")
	}
	if err != nil {
		t.Fatal(err)
	}
	r, _ := fileReader(t, ReaderConfig{CacheFile: file})
	put(t, r, credential(1, time.Hour))
	r.save()
	body, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	if string(body) != "mine" {
		t.Error("the target of the link was overwritten")
	}
	info, err := os.Lstat(file)
	if err != nil {
		t.Fatal(err)
	}
	if !info.Mode().IsRegular() {
		t.Errorf("the mode of the file is %v, want a regular file", info.Mode())
	}
}

// A process that was killed while it wrote leaves a file behind.
func TestWriteReplacesWhatAnEarlierOneHasLeftBehind(t *testing.T) {
	t.Parallel()
	file := cacheFile(t)
	if err := os.WriteFile(file+".next", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, _ := fileReader(t, ReaderConfig{CacheFile: file})
	put(t, r, credential(1, time.Hour))
	r.save()
	checkFile(t, file, 1)
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
				file := cacheFile(t)
				if err := os.Mkdir(file, 0o700); err != nil { // a folder, which a file cannot replace
					t.Fatal(err)
				}
				var problems []error
				_, events, stop := scriptedReader(t, ReaderConfig{
					CacheFile: file, OnError: func(err error) { problems = append(problems, err) },
				})
				defer stop()
				problems = nil // that the folder is not used
				events <- recordEvent(t, credential(1, time.Hour))
				synctest.Wait()
				sleep(2*cacheEvery + time.Second)
				synctest.Wait()
				if len(problems) != 3 {
					t.Errorf("in 21 s, OnError received %v, want three errors", problems)
				}
				checkOnlyFile(t, file)
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
				next(stop)
				checkFile(t, file, 1)
			})
		})
	}
}

// A service that follows thousands of accounts would write permanently otherwise.
func TestFileIsWrittenAtMostEveryTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		file := cacheFile(t)
		_, events, stop := scriptedReader(t, ReaderConfig{CacheFile: file})
		saved := map[time.Time]bool{}
		for generation := uint64(1); generation <= 350; generation++ { // for 35 s
			events <- recordEvent(t, credential(generation, time.Hour))
			synctest.Wait()
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var content cached
			if err := json.Unmarshal(body, &content); err != nil {
				t.Fatal(err)
			}
			saved[content.SavedAt] = true
			sleep(100 * time.Millisecond)
		}
		if len(saved) != 4 {
			t.Errorf("the file was written %d times in 35 s, want 4", len(saved))
		}
		stop()
		checkFile(t, file, 350)
	})
}
