package store

import (
	"context"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// Overlapping returns the names of the streams that store requests to the workers, or republished records. Such a
// stream keeps openids or tokens on disk; and JetStream acknowledges a request before a worker replies, which clients
// that do not look for messages.HeaderReply take for the reply. The buckets themselves and streams of events do not
// count. Another service that answers on these subjects cannot be seen. [ErrUnavailable].
func (s *Store) Overlapping(ctx context.Context) (streams []string, err error) {
	subjects := []string{messages.PublishedSubject(s.cfg.SubjectPrefix, "*", "*")}
	for _, request := range messages.Subjects {
		subjects = append(subjects, s.cfg.SubjectPrefix+"."+request, s.cfg.SubjectPrefix+"."+request+".*")
	}
	return s.streamsOf(ctx, subjects...)
}

// streamsOf returns the names of the streams, other than those of the buckets, that store any of the subjects.
func (s *Store) streamsOf(ctx context.Context, subjects ...string) (streams []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	own := []string{bucket.Stream(s.cfg.Bucket), bucket.Stream(bucket.LedgerOf(s.cfg.Bucket))}
	for _, subject := range subjects {
		names := s.js.StreamNames(ctx, jetstream.WithStreamListSubject(subject))
		for name := range names.Name() {
			if !slices.Contains(own, name) && !slices.Contains(streams, name) {
				streams = append(streams, name)
			}
		}
		if err := names.Err(); err != nil {
			return nil, unavailable("list the streams of "+subject, err)
		}
	}
	slices.Sort(streams)
	return streams, nil
}
