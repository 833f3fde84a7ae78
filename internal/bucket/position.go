package bucket

// position is the position of a record in its stream, and the time at which the server stored it.
type position struct {
	sequence uint64
	storedAt int64 // Unix nanoseconds
}

// positions remembers the last position of each key, for users without permission for STREAM.INFO, which would
// show whether the stream is still the same.
type positions map[string]position

// next notes the position of a record and reports whether it proves that the bucket was recreated: the sequence
// has not grown, and yet the record was stored later. (A lower sequence that was stored earlier comes from a
// replica that lags, or from a restored backup.)
func (ps *positions) next(key string, now position) (recreated bool) {
	if *ps == nil {
		*ps = positions{}
	}
	last := (*ps)[key]
	(*ps)[key] = now
	return now.sequence <= last.sequence && now.storedAt > last.storedAt
}
