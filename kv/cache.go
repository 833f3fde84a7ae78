package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
)

// cacheEvery is the least time between two writes of the file. A token that was replaced lives for five minutes more, so
// what is lost with a process that is killed does no harm.
const cacheEvery = 10 * time.Second

// cacheAhead is how far ahead of the time here a worker may have obtained a credential: its clock may be wrong by that much.
// What claims more would be taken for newer than everything that the bucket has, for as long as it says.
const cacheAhead = 24 * time.Hour

// cacheLimit is the largest file that is read, in bytes: 30,000 credentials take about 12 MB.
const cacheLimit = 256 << 20

// cache is the file of a Reader: of mode 0600, which protects it on Unix alone.
type cache struct {
	file   string
	bucket string
	dirty  chan struct{} // has an element while what the Reader holds is not in the file
}

// cached is what stands in the file.
type cached struct {
	Bucket      string                `json:"bucket"`
	SavedAt     time.Time             `json:"saved_at"`
	Credentials []messages.Credential `json:"credentials"`
}

func (c *cache) changed() {
	select {
	case c.dirty <- struct{}{}:
	default:
	}
}

// restore takes what is valid in the file. A file that cannot be used is told as trouble, and replaced by the next write.
func (r *Reader) restore() {
	r.cache.dirty = make(chan struct{}, 1)
	credentials, err := r.cache.load()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.trouble(fmt.Errorf("kv: the cache file is not used: %w", err))
		}
		return
	}
	now := r.cfg.Now()
	for i := range credentials {
		c := &credentials[i]
		if c.Validate() != nil || !c.Valid(now) || c.ObtainedAt.After(now.Add(cacheAhead)) || (len(r.cfg.AppIDs) > 0 && !slices.Contains(r.cfg.AppIDs, c.AppID)) {
			continue
		}
		c.Revision = 0 // it was that of a bucket that may have been recreated since
		s := r.slot(c.AppID, c.Kind)
		s.hold(c)
		s.bucket = -1 // not known to be the one that is there now
	}
}

// keep writes the file after each change, and once more when ctx has ended. What could not be written is tried again.
func (r *Reader) keep(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-pause.C:
			select {
			case <-ctx.Done():
			case <-r.cache.dirty:
				r.save()
				pause.Reset(cacheEvery)
			}
		}
	}
	select {
	case <-r.cache.dirty:
		r.save()
	default:
	}
}

func (r *Reader) save() {
	now := r.cfg.Now()
	what := cached{Bucket: r.cfg.Bucket, SavedAt: now.UTC().Truncate(time.Millisecond), Credentials: []messages.Credential{}}
	r.slots.Range(func(appid, v any) bool {
		for i := range v.(*slots) {
			if c, err := v.(*slots)[i].current(now, appid.(string), messages.Kinds[i]); err == nil {
				what.Credentials = append(what.Credentials, *c)
			}
		}
		return true
	})
	if err := r.cache.store(what); err != nil {
		r.cache.changed()
		r.trouble(fmt.Errorf("kv: writing the cache file: %w", err))
	}
}

func (c *cache) load() ([]messages.Credential, error) {
	if err := c.check(os.Stat(c.file)); err != nil { // before it is opened, because that blocks where it is a FIFO
		return nil, err
	}
	f, err := os.Open(c.file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := c.check(f.Stat()); err != nil { // of the one that was opened
		return nil, err
	}
	var what cached
	if err := json.NewDecoder(f).Decode(&what); err != nil {
		return nil, fmt.Errorf("%s is not the JSON of a cache file", c.file)
	}
	if what.Bucket != c.bucket {
		return nil, fmt.Errorf("%s is of bucket %.64q, not of %q", c.file, what.Bucket, c.bucket)
	}
	return what.Credentials, nil
}

// check says why what was learned of the file forbids to use it.
func (c *cache) check(info fs.FileInfo, err error) error {
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", c.file)
	case info.Size() > cacheLimit:
		return fmt.Errorf("%s has %d bytes", c.file, info.Size())
	}
	if err := checkPrivate(info); err != nil {
		return fmt.Errorf("%s %w", c.file, err)
	}
	return nil
}

// store replaces the file as a whole: whoever reads it sees the old one or the new one.
func (c *cache) store(what cached) (err error) {
	data, err := json.Marshal(what)
	if err != nil {
		return err
	}
	// The name is fixed, so that a process that is killed here leaves no more than one behind.
	next := filepath.Clean(c.file + ".next")
	create := func() (*os.File, error) { return os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) }
	f, err := create()
	if errors.Is(err, fs.ErrExist) { // that one; or a link that somebody has put there, and what it leads to stays as it is
		if err = os.Remove(next); err == nil {
			f, err = create()
		}
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(next)
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	return os.Rename(next, c.file)
}
