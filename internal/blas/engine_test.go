package blas

import (
	"sync/atomic"
	"testing"
)

func TestFor(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 8} {
		e := New(threads)
		if e.Threads() != threads {
			t.Fatalf("Threads() = %d, want %d", e.Threads(), threads)
		}
		for _, n := range []int{0, 1, 2, 100} {
			calls := make([]atomic.Int32, n)
			e.For(n, func(i int) {
				calls[i].Add(1)
				// Engines nest: attention runs products inside For.
				if i%16 == 0 {
					e.For(3, func(int) {})
				}
			})
			for i := range calls {
				if c := calls[i].Load(); c != 1 {
					t.Fatalf("%d threads, n %d: f(%d) was called %d times", threads, n, i, c)
				}
			}
		}
	}
}

func TestForPanic(t *testing.T) {
	for _, threads := range []int{1, 4} {
		func() {
			defer func() {
				if v := recover(); v != "seven" {
					t.Errorf("%d threads: recovered %v, want seven", threads, v)
				}
			}()
			New(threads).For(1000, func(i int) {
				if i == 7 {
					panic("seven")
				}
			})
			t.Errorf("%d threads: For returned", threads)
		}()
	}
}

func TestPoolBounds(t *testing.T) {
	var p pool[float32]
	var all []*scratch[float32]
	for range 40 {
		s := p.get(1 << 20)
		s.data[0], s.data[1<<20-1] = 1, 1
		all = append(all, s)
	}
	for _, s := range all {
		p.put(s)
	}
	if p.kept > poolBytes {
		t.Fatalf("pool keeps %d bytes, more than %d", p.kept, poolBytes)
	}
	if got := p.get(1 << 20); p.kept > poolBytes-4<<20 || len(got.data) < 1<<20 {
		t.Fatalf("pool handed out %d elements and keeps %d bytes", len(got.data), p.kept)
	}
}
