//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

// freshLimit is how long after the last fault everything must be fresh again: one life.
const freshLimit = tokenLife

// quiesce waits until everything is fresh in every consumer after the last fault, and checks that no process has
// grown.
func (st *stack) quiesce(ctx context.Context) {
	c := st.checker
	c.print("no more faults: everything must become fresh again")
	allFresh := func(context.Context) error { return c.allFresh(st.consumers) }
	if err := await(ctx, "everything to be fresh", freshLimit, allFresh); err != nil {
		c.fail(err.Error())
	}
	// A new worker is the measure of the others. They may hold goroutines and connections for the requests they had.
	newest := st.workers[0]
	if err := newest.end(syscall.SIGTERM); err != nil {
		c.fail(err.Error())
	}
	if err := newest.start(c.fail); err != nil {
		c.fail(err.Error())
		return
	}
	ready := func(ctx context.Context) error {
		_, err := page(ctx, newest, "/readyz")
		return err
	}
	if err := await(ctx, "a ready worker", hang, ready); err != nil {
		c.fail(err.Error())
		return
	}
	var sizes []size
	err := await(ctx, "workers of equal size", hang, func(ctx context.Context) error {
		sizes = nil
		for _, w := range st.workers {
			s, err := measure(ctx, w)
			if err != nil {
				return err
			}
			sizes = append(sizes, s)
		}
		for i, s := range sizes {
			if s.exceeds(sizes[0]) {
				return fmt.Errorf("%s has grown: %+v, a new worker has %+v", st.workers[i].name, s, sizes[0])
			}
		}
		return nil
	})
	for i, s := range sizes {
		c.print("%s: %d goroutines, %d files, %d MiB", st.workers[i].name, s.goroutines, s.files, s.bytes>>20)
	}
	if err != nil {
		c.fail(err.Error())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range st.consumers {
		const most = 100
		if o := c.latest[p.name]; o.Goroutines > most {
			c.failLocked("%s has %d goroutines", p.name, o.Goroutines)
		}
	}
}

// size is the size of a worker, as its metrics return it.
type size struct{ goroutines, files, bytes int }

// exceeds returns whether a worker has grown, compared with a new one.
func (s size) exceeds(fresh size) bool {
	return s.goroutines > fresh.goroutines+100 || s.files > fresh.files+60 || s.bytes > fresh.bytes+100<<20
}

// page returns what a worker serves under a path.
func page(ctx context.Context, p *process, path string) (string, error) {
	url, err := p.pageURL(time.Second)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s%s: %s", p.name, path, resp.Status)
	}
	return string(body), err
}

var sizeInMetrics = regexp.MustCompile(`(?m)^(go_goroutines|process_open_fds|process_resident_memory_bytes) (\S+)$`)

func measure(ctx context.Context, p *process) (size, error) {
	text, err := page(ctx, p, "/metrics")
	if err != nil {
		return size{}, err
	}
	values := map[string]int{}
	for _, g := range sizeInMetrics.FindAllStringSubmatch(text, -1) {
		v, err := strconv.ParseFloat(g[2], 64)
		if err != nil {
			return size{}, err
		}
		values[g[1]] = int(v)
	}
	if len(values) != 3 {
		return size{}, fmt.Errorf("%s: metrics %v", p.name, values)
	}
	return size{values["go_goroutines"], values["process_open_fds"], values["process_resident_memory_bytes"]}, nil
}
