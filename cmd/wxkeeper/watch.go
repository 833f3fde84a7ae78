package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/safetext"
	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

type watchVerb struct {
	AppID []string `name:"appid" placeholder:"APPID" help:"Print only this account. May be repeated."`
	JSON  bool     `name:"json" help:"Print each change as one JSON object per line."`
}

func (watchVerb) Help() string {
	return `It prints the credentials that there are now, and then each change, one per line, until a signal stops it:
time, account, kind, generation, revision, expiry, source. It never prints a value. Without --appid it prints the
accounts that the workers keep when it starts.

Example:

    wxkeeper watch --appid wx0123456789abcdef
`
}

// Validate is called by kong.
func (v *watchVerb) Validate() error { return checkAppIDs(v.AppID...) }

func (v *watchVerb) Run(ctx context.Context, t *terminal) error {
	cfg, err := config.Load(nil)
	if err != nil {
		return err
	}
	appids, err := v.accounts(ctx, t)
	if err != nil {
		return err
	}
	errs := &watchErrors{t: t, violations: map[string]bool{}}
	nc, err := connect(ctx, t, cfg, onViolation(cfg, errs.printViolation))
	if err != nil {
		return err
	}
	defer nc.Close()
	ctx, stop := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer stop()
	background.Go(func() {
		select {
		case <-nc.Closed():
			stop()
		case <-ctx.Done():
		}
	})
	found := map[string]bool{} // accounts that have a credential
	snapshot := false          // the first snapshot is complete
	r, err := kv.NewReader(nc.Conn, kv.ReaderConfig{
		Bucket: cfg.Bucket, SubjectPrefix: cfg.SubjectPrefix, AppIDs: appids, Feed: kv.FeedRequests,
		OnChange: func(c kv.Change) {
			errs.reset()
			found[c.AppID] = true
			v.print(t, c)
			if c.Ready && !snapshot {
				snapshot = true
				nothing(t, appids, found)
			}
		},
		OnError: errs.print,
	})
	if err != nil {
		return err
	}
	_ = r.Run(ctx) // returns only the error of ctx
	return nc.Err()
}

// change is one line of the output with --json.
type change struct {
	Time  time.Time     `json:"time"`
	AppID string        `json:"appid"`
	Kind  messages.Kind `json:"kind"`
	Gone  bool          `json:"gone,omitempty"` // deleted, expired, or lost with its bucket

	Generation uint64    `json:"generation,omitempty"`
	Revision   uint64    `json:"revision,omitempty"`
	ObtainedAt time.Time `json:"obtained_at,omitzero"`
	ExpiresAt  time.Time `json:"expires_at,omitzero"`
	RefreshAt  time.Time `json:"refresh_at,omitzero"`
	Source     string    `json:"source,omitempty"`
	Worker     string    `json:"worker,omitempty"`
}

// accounts returns the accounts to follow: those that were named, or those that the workers keep.
func (v *watchVerb) accounts(ctx context.Context, t *terminal) ([]string, error) {
	if len(v.AppID) > 0 {
		return v.AppID, nil
	}
	var status messages.Status
	asking := clientFlags{Timeout: statusTimeout}
	err := asking.request(ctx, t, func(ctx context.Context, c *messages.Client, _ config.Config) (err error) {
		status, err = c.Status(ctx, messages.StatusRequest{})
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case status.Truncated:
		return nil, fmt.Errorf("the workers keep %d accounts, more than one reply can list: name accounts with --appid",
			status.Accounts)
	}
	var appids []string
	for _, c := range status.Credentials {
		appids = append(appids, c.AppID)
	}
	slices.Sort(appids)
	return slices.Compact(appids), nil
}

// statusTimeout is how long the verb waits for the list of accounts.
const statusTimeout = 10 * time.Second

// nothing prints for which accounts there is no credential.
func nothing(t *terminal, appids []string, found map[string]bool) {
	for _, id := range appids {
		if !found[id] {
			t.complain("no credential of %s yet", id)
		}
	}
}

func (v *watchVerb) print(t *terminal, c kv.Change) {
	if c.AppID == "" {
		return // it marks the beginning or the end of a snapshot
	}
	now := t.now()
	if !v.JSON {
		safetext.Fprintf(t.out, "%s  %-18s  %-14s  ", now.Format(time.TimeOnly), c.AppID, c.Kind)
		if r := c.Record; r != nil {
			safetext.Fprintf(t.out, "generation %d  revision %d  expires %s  %s by %s\n",
				r.Generation, r.Revision, relative(now, r.ExpiresAt), r.Source, r.Worker)
		} else {
			safetext.Fprintf(t.out, "gone: deleted or expired\n")
		}
		return
	}
	line := change{Time: now.UTC().Truncate(time.Millisecond), AppID: c.AppID, Kind: c.Kind, Gone: c.Record == nil}
	if r := c.Record; r != nil {
		line.Generation, line.Revision, line.Source, line.Worker = r.Generation, r.Revision, r.Source, r.Worker
		line.ObtainedAt, line.ExpiresAt, line.RefreshAt = r.ObtainedAt, r.ExpiresAt, r.RefreshAt
	}
	_ = t.encode(line, false) // one line per change, on a terminal too
}
