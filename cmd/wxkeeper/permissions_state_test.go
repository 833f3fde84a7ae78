package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
)

// serverState is everything that an attack could change in the NATS account of the buckets, and the calls of
// WeChat.
type serverState struct {
	Streams map[string]streamState
	Calls   map[string]int // by account and endpoint
}

type streamState struct {
	Config    jetstream.StreamConfig
	LastSeq   uint64
	Messages  []string // sequence, subject, and the hash of headers and data
	Consumers []string // without the watches of the worker, which it removes and creates at will
}

// witness is the durable consumer of the test on each stream: nobody may remove it or move it.
const witness = "witness"

// state reads the whole state of the NATS account of the buckets.
func (a *attack) state() serverState {
	a.Helper()
	s := serverState{Streams: map[string]streamState{}, Calls: map[string]int{}}
	for id, endpoints := range a.wechat.sim.Snapshot().Accounts {
		for endpoint, c := range endpoints {
			s.Calls[id+" "+endpoint] = c.Calls
		}
	}
	delete(s.Calls, mine+" tickettocode") // a user of this account may have codes resolved
	streams := a.js.ListStreams(a.context())
	for info := range streams.Info() {
		s.Streams[info.Config.Name] = a.streamState(info)
	}
	if err := streams.Err(); err != nil {
		a.Fatal(err)
	}
	return s
}

func (a *attack) streamState(info *jetstream.StreamInfo) streamState {
	a.Helper()
	ctx := a.context()
	s := streamState{Config: info.Config, LastSeq: info.State.LastSeq}
	stream, err := a.js.Stream(ctx, info.Config.Name)
	if err != nil {
		a.Fatal(err)
	}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		m, err := stream.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			a.Fatal(err)
		}
		if strings.HasPrefix(m.Subject, "$KV.creds.lease.") && len(m.Data) == 0 {
			continue // the marker of a lease that was given back: the server removes it after a minute
		}
		hash := sha256.New()
		for _, name := range slices.Sorted(maps.Keys(m.Header)) {
			fmt.Fprintln(hash, name, m.Header[name])
		}
		hash.Write(m.Data)
		s.Messages = append(s.Messages, fmt.Sprint(seq, " ", m.Subject, " ", hex.EncodeToString(hash.Sum(nil)[:8])))
	}
	consumers := stream.ListConsumers(ctx)
	for c := range consumers.Info() {
		if c.Name != witness && c.Config.FilterSubject == bucket.Subject(strings.TrimPrefix(c.Stream, "KV_"), bucket.AllKeys) &&
			c.Config.DeliverSubject == "" {
			continue
		}
		s.Consumers = append(s.Consumers, fmt.Sprintf("%s delivered %d, ack floor %d, pending %d, paused %t",
			c.Name, c.Delivered.Stream, c.AckFloor.Stream, c.NumAckPending, c.Paused))
	}
	if err := consumers.Err(); err != nil {
		a.Fatal(err)
	}
	return s
}
