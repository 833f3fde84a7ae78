package worker

import "sync"

// flights coalesces equal requests that arrive at the same time: the first request for a key leads a flight, the
// others join it and share its result.
type flights[K comparable, V any] struct {
	mu sync.Mutex
	m  map[K]*flight[V]
}

// flight is one request in progress. done is closed when value and err are set.
type flight[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// join returns the flight of a key, and whether the caller leads it. A leader must call end. If admit is not nil,
// it is called first, with whether the caller would lead; if it returns an error, join returns that error.
func (f *flights[K, V]) join(key K, admit func(leads bool) error) (*flight[V], bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl := f.m[key]
	if admit != nil {
		if err := admit(fl == nil); err != nil {
			return nil, false, err
		}
	}
	if fl != nil {
		return fl, false, nil
	}
	fl = &flight[V]{done: make(chan struct{})}
	if f.m == nil {
		f.m = make(map[K]*flight[V])
	}
	f.m[key] = fl
	return fl, true, nil
}

// end ends a flight, so that the next request for the key leads a new one. Callers defer it: if a panic left the
// flight in the map, all later requests for the key would wait for it until the process exits.
func (f *flights[K, V]) end(key K, fl *flight[V]) {
	f.mu.Lock()
	delete(f.m, key)
	f.mu.Unlock()
	close(fl.done)
}
