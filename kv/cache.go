package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// cacheEvery is the shortest time between two writes of the file. WeChat accepts a replaced token for five more
// minutes (docs/wechat-api.md#token), so it does no harm if a process is killed before it writes the newest
// token.
const cacheEvery = 10 * time.Second

// cacheLimit is the size of the largest file that is read, in bytes. 30,000 credentials take about 12 MB.
const cacheLimit = 256 << 20

// cache is the cache file of a Reader.
type cache struct {
	file   string
	bucket string
	dirty  chan struct{} // has an element while the Reader holds something that the file lacks
}

// cached is the content of the file.
type cached struct {
	Bucket      string                `json:"bucket"`
	SavedAt     time.Time             `json:"saved_at"`
	Credentials []messages.Credential `json:"credentials"`
}

// changed notes that the Reader holds something that the file lacks.
func (c *cache) changed() {
	select {
	case c.dirty <- struct{}{}:
	default:
	}
}

// restore takes the valid credentials of the file. If the file cannot be used, OnError is called, and the next
// write replaces the file.
func (r *Reader) restore() {
	credentials, err := r.cache.load()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.onError(fmt.Errorf("kv: the cache file is not used: %w", err))
		}
		return
	}
	now := r.cfg.Now()
	for _, c := range credentials {
		if c.ValidateAt(now) == nil && c.Valid(now) && r.checkAccount(c.AppID) == nil {
			c.Revision = 0 // the bucket may have been recreated since
			r.latest.Accept(c)
		}
	}
}

// saveChanges writes the file after each change, but at most every cacheEvery, and once more when ctx has
// ended. It retries a write that failed.
func (r *Reader) saveChanges(ctx context.Context) {
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

// save writes the valid credentials into the file.
func (r *Reader) save() {
	now := r.cfg.Now()
	content := cached{
		Bucket: r.cfg.Bucket, SavedAt: now.UTC().Truncate(time.Millisecond), Credentials: []messages.Credential{},
	}
	r.latest.Each(func(n bucket.Name, s *bucket.Slot) {
		if c, err := s.Get(now, n.AppID, n.Kind); err == nil {
			content.Credentials = append(content.Credentials, *c)
		}
	})
	if err := r.cache.store(content); err != nil {
		r.cache.changed()
		r.onError(fmt.Errorf("kv: write the cache file: %w", err))
	}
}

// load reads the credentials of the file, if the file may be used.
func (c *cache) load() ([]messages.Credential, error) {
	if err := c.check(os.Stat(c.file)); err != nil { // before Open, which blocks if the file is a FIFO
		return nil, err
	}
	f, err := os.Open(c.file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := c.check(f.Stat()); err != nil { // again: the opened file may be another one
		return nil, err
	}
	var content cached
	if err := json.NewDecoder(f).Decode(&content); err != nil {
		return nil, fmt.Errorf("%s is not the JSON of a cache file", c.file)
	}
	if content.Bucket != c.bucket {
		return nil, fmt.Errorf("%s belongs to bucket %.64q, not to %q", c.file, content.Bucket, c.bucket)
	}
	return content.Credentials, nil
}

// check returns why a file must not be used, or nil.
func (c *cache) check(info fs.FileInfo, err error) error {
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", c.file)
	case info.Size() > cacheLimit:
		return fmt.Errorf("%s has %d bytes, more than %d", c.file, info.Size(), int64(cacheLimit))
	}
	if err := checkPrivate(info); err != nil {
		return fmt.Errorf("%s %w", c.file, err)
	}
	return nil
}

// store replaces the file as a whole: another process that reads it sees either the old content or the new.
func (c *cache) store(content cached) (err error) {
	data, err := json.Marshal(content)
	if err != nil {
		return err
	}
	// The name is always the same, so that killed processes leave at most one file behind.
	next := filepath.Clean(c.file + ".next")
	create := func() (*os.File, error) { return os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) }
	f, err := create()
	if errors.Is(err, fs.ErrExist) { // a file that was left behind, or a link whose target must not be overwritten
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
