package kv

// mark is the place of a record in a stream, and in time.
type mark struct {
	sequence uint64
	at       int64 // when the server stored it, in Unix nanoseconds
}

// marks remember the last record of each key, for who may not ask the stream whether it is still the same.
type marks map[string]mark

// next notes a record, and says whether it shows that the bucket was made anew: it stands no further in the stream than
// the one before, and was stored later. (One that was stored earlier is of a replica that lags, or of a backup.)
func (ms *marks) next(key string, now mark) (anew bool) {
	if *ms == nil {
		*ms = marks{}
	}
	last := (*ms)[key]
	(*ms)[key] = now
	return now.sequence <= last.sequence && now.at > last.at
}
