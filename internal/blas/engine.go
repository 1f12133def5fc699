package blas

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/mlaconvert/mlaconvert/internal/blas/isa"
)

// Engine runs the kernels of this package on up to Threads goroutines. The
// result of every call is bit-identical for any number of threads. An Engine is
// safe for concurrent use; its scratch memory comes from pools of bounded size
// that all engines share.
type Engine struct {
	threads int
	suite   *suite
}

// New returns an engine that uses up to the given number of goroutines, or
// GOMAXPROCS of them if threads < 1.
func New(threads int) *Engine {
	if threads < 1 {
		threads = runtime.GOMAXPROCS(0)
	}
	return &Engine{threads: threads, suite: activeSuite()}
}

var activeSuite = sync.OnceValue(func() *suite { return newSuite(isa.Active()) })

// Threads returns the largest number of goroutines that a call runs on.
func (e *Engine) Threads() int { return e.threads }

// For calls f(i) once for every i in [0, n), on up to Threads goroutines of
// which the caller's is one. Indices are handed out in increasing order as
// goroutines become free, so that uneven work balances itself. For returns when
// all calls have returned. A panic in f stops the handing out of indices and is
// raised again, with the same value, in the calling goroutine.
func (e *Engine) For(n int, f func(i int)) { e.run(e.threads, n, f) }

// workers returns the number of goroutines that so many multiplications keep
// busy.
func (e *Engine) workers(work int) int {
	return max(1, min(e.threads, work/serialWork))
}

// run is For on up to the given number of goroutines.
func (e *Engine) run(workers, n int, f func(i int)) {
	workers = min(workers, n)
	if workers <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var (
		next     atomic.Int64
		panicked sync.Once
		value    any
		failed   atomic.Bool
	)
	work := func() {
		defer func() {
			if v := recover(); v != nil {
				panicked.Do(func() { value = v })
				failed.Store(true)
				next.Store(int64(n))
			}
		}()
		for {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			f(i)
		}
	}
	(&shared{work: work}).with(workers - 1)
	if failed.Load() {
		panic(value)
	}
}
