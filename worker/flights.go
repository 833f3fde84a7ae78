package worker

import "sync"

// flights merges what is asked for at the same time: the first who asks for a key leads its flight, the others join it.
type flights[K comparable, V any] struct {
	mu sync.Mutex
	m  map[K]*flight[V]
}

// flight is one question under way. done is closed when value and err are set.
type flight[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// join returns the flight of a key, and whether the caller leads it: then it must call end. refuse, which may be nil,
// is asked before either, with what there is, and its error is returned.
func (f *flights[K, V]) join(key K, refuse func(flights int, leads bool) error) (*flight[V], bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl := f.m[key]
	if refuse != nil {
		if err := refuse(len(f.m), fl == nil); err != nil {
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

// end ends a flight, so that the next who asks leads a new one. It is deferred: a key that stayed, after a panic, would
// never be asked for again.
func (f *flights[K, V]) end(key K, fl *flight[V]) {
	f.mu.Lock()
	delete(f.m, key)
	f.mu.Unlock()
	close(fl.done)
}
