package main

import (
	"context"
	"fmt"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

type watchVerb struct {
	AppID []string `name:"appid" placeholder:"APPID" help:"Follow this account alone. May be repeated."`
	JSON  bool     `name:"json" help:"Print each change as one JSON object a line."`
}

func (watchVerb) Help() string {
	return `It prints what stands in the bucket now, and then each change, one a line, until a signal stops it: time, account, kind, generation, revision, when it expires, source. It never prints a value. It reads the bucket itself, which needs more permissions than the other verbs do.

Example:

    wxkeeper watch --appid wx0123456789abcdef
`
}

// Validate is called by kong.
func (v *watchVerb) Validate() error {
	for _, id := range v.AppID {
		if err := messages.CheckAppID(id); err != nil {
			return fmt.Errorf("--appid: %w", err)
		}
	}
	return nil
}

func (v *watchVerb) Run(ctx context.Context, t *terminal) error {
	cfg, err := config.Load(nil)
	if err != nil {
		return usage(err)
	}
	why := &troubles{t: t, bucket: cfg.Bucket}
	nc, err := connect(ctx, t, cfg, onRefusal(cfg, why.refusal))
	if err != nil {
		return err
	}
	defer nc.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-nc.Closed():
			stop()
		case <-ctx.Done():
		}
	}()
	found := map[string]bool{} // accounts that have something in the bucket
	snapshot := false          // the first one was told
	r, err := kv.NewReader(nc.Conn, kv.ReaderConfig{
		Bucket: cfg.Bucket, AppIDs: v.AppID,
		OnChange: func(c kv.Change) {
			why.over()
			found[c.AppID] = true
			v.print(t, c)
			if c.Ready && !snapshot {
				snapshot = true
				v.nothing(t, found)
			}
		},
		OnError: why.trouble,
	})
	if err != nil {
		return err
	}
	_ = r.Run(ctx) // returns ctx's error alone
	return nc.Err()
}

// change is one line of --json.
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

// nothing says of which accounts the bucket has nothing, where otherwise silence would.
func (v *watchVerb) nothing(t *terminal, found map[string]bool) {
	for _, id := range v.AppID {
		if !found[id] {
			fmt.Fprintf(t.err, "wxkeeper: nothing in the bucket for %s yet\n", id)
		}
	}
	delete(found, "") // of the marks of a snapshot
	if len(v.AppID) == 0 && len(found) == 0 {
		fmt.Fprintln(t.err, "wxkeeper: nothing in the bucket yet")
	}
}

func (v *watchVerb) print(t *terminal, c kv.Change) {
	if c.AppID == "" {
		return // a mark of the snapshot
	}
	now := t.now()
	if !v.JSON {
		fmt.Fprintf(t.out, "%s  %-18s  %-14s  ", now.Format(time.TimeOnly), c.AppID, c.Kind)
		if r := c.Record; r != nil {
			fmt.Fprintf(t.out, "generation %d  revision %d  expires %s  %s by %s\n",
				r.Generation, r.Revision, relative(now, r.ExpiresAt), oneLine(r.Source), oneLine(r.Worker))
		} else {
			fmt.Fprintln(t.out, "gone: deleted or expired")
		}
		return
	}
	line := change{Time: now.UTC().Truncate(time.Millisecond), AppID: c.AppID, Kind: c.Kind, Gone: c.Record == nil}
	if r := c.Record; r != nil {
		line.Generation, line.Revision, line.Source, line.Worker = r.Generation, r.Revision, r.Source, r.Worker
		line.ObtainedAt, line.ExpiresAt, line.RefreshAt = r.ObtainedAt, r.ExpiresAt, r.RefreshAt
	}
	one := *t
	one.tty = false // one line a change, on a terminal too
	_ = one.json(line)
}
