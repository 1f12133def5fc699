package blas

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// spinning is how long a goroutine looks for work, or for the end of others' work, before it sleeps. The products of a forward
// pass follow each other sooner; a sleeper comes back 20 to 80 microseconds after it was woken (two cores of a virtual machine).
const spinning = 50 * time.Microsecond

// shared is work that goroutines do together.
type shared struct {
	work func()
	// helping is how many others are still at it, ended what the first of them waits on when it has stopped spinning.
	helping atomic.Int32
	ended   sync.WaitGroup
	waiting atomic.Bool
}

// with does the work on the goroutine of the caller and so many others, and returns when all have returned.
func (s *shared) with(others int) {
	s.helping.Store(int32(others))
	s.ended.Add(others)
	strangers := others - s.recruit(others)
	for range strangers {
		go func() {
			s.work()
			s.leave()
		}()
		unblock()
	}
	s.work()
	// Those that are not of the crew may have no processor but this one.
	if strangers > 0 || !spinUntil(func() bool { return s.helping.Load() == 0 }) {
		s.waiting.Store(true)
		s.ended.Wait()
	}
}

// leave tells the first that one of the others has returned.
func (s *shared) leave() {
	s.helping.Add(-1)
	s.ended.Done()
	if s.waiting.Load() {
		runtime.Gosched() // in favour of the first, see unblock
	}
}

// spinUntil asks done over and over for a while and returns what it said last.
func spinUntil(done func() bool) bool {
	const asked = 32
	for start := time.Now(); ; {
		for range asked {
			if done() {
				return true
			}
		}
		if time.Since(start) > spinning {
			return false
		}
	}
}

// unblock lets another processor take the goroutine that this one has just made ready. It holds the latest for itself, and
// others take that only after a sleep (runtime.runqgrab), unless a later one is in its place.
func unblock() { go func() {}() }

// crew are goroutines that wait for work from all engines, one less than there are processors to run on. Who needs more of
// them than are free starts others.
var crew = sync.OnceValue(func() []*helper {
	all := make([]*helper, runtime.GOMAXPROCS(0)-1)
	for i := range all {
		all[i] = &helper{wake: make(chan struct{}, 1)}
		go all[i].loop()
	}
	return all
})

// helper is one of the crew.
type helper struct {
	state atomic.Int32
	// work is what it was engaged for, nil when it has begun it.
	work atomic.Pointer[shared]
	wake chan struct{}
}

// States of a helper. Who engages one brings it work.
const (
	free int32 = iota
	asleep
	engaged
)

// recruit has up to so many of the crew do the work and returns how many do.
func (s *shared) recruit(wanted int) int {
	found := 0
	for _, state := range [...]int32{free, asleep} {
		for _, h := range crew() {
			if found == wanted {
				return found
			}
			if !h.state.CompareAndSwap(state, engaged) {
				continue
			}
			found++
			h.work.Store(s)
			if state == asleep {
				h.wake <- struct{}{}
				unblock()
			}
		}
	}
	return found
}

func (h *helper) loop() {
	hasWork := func() bool { return h.work.Load() != nil }
	for {
		if !spinUntil(hasWork) && h.state.CompareAndSwap(free, asleep) {
			<-h.wake
		}
		s := h.work.Swap(nil)
		if s == nil {
			continue // engaged, and the work is on its way
		}
		s.work()
		h.state.Store(free)
		s.leave()
	}
}
