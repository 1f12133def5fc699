package blas

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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

// TestForTogether: engines at work at the same time, with pauses in and between their loops longer and shorter than goroutines
// spin for, each do all of their work, and For returns behind it.
func TestForTogether(t *testing.T) {
	var all sync.WaitGroup
	for k := range 6 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(k), 1))
			e := New(1 + k%4)
			for range 300 {
				sum := 0
				parts := make([]int, 1+random.IntN(6))
				pause := time.Duration(random.IntN(120)) * time.Microsecond
				e.For(len(parts), func(i int) {
					if i%2 == 0 {
						time.Sleep(pause)
					}
					e.For(2, func(j int) {
						if j == 1 {
							parts[i] = i + 1
						}
					})
				})
				for _, v := range parts {
					sum += v
				}
				if want := len(parts) * (len(parts) + 1) / 2; sum != want {
					t.Errorf("sum %d, want %d", sum, want)
				}
				time.Sleep(time.Duration(random.IntN(2)) * pause)
			}
		})
	}
	all.Wait()
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

// TestForPanicStops checks that a panic keeps the other goroutines from running
// through all indices.
func TestForPanicStops(t *testing.T) {
	const n = 1 << 15
	var calls atomic.Int32
	func() {
		defer func() { _ = recover() }()
		New(4).For(n, func(i int) {
			if calls.Add(1); i == 7 {
				panic("seven")
			}
			time.Sleep(100 * time.Microsecond)
		})
	}()
	if calls.Load() == n {
		t.Fatal("all indices were handed out after the panic")
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

func TestSplit(t *testing.T) {
	for _, lanes := range []int{2, 4, 8, 16} {
		for vectors := 1; vectors <= 3; vectors++ {
			for n := 1; n < 300; n++ {
				p := split(n, lanes, vectors)
				for j := range p.count {
					if w := p.start(j+1) - p.start(j); w < lanes || w > lanes*vectors || w%lanes != 0 {
						t.Fatalf("split(%d, %d, %d): panel %d is %d wide", n, lanes, vectors, j, w)
					}
					for i := p.start(j); i < min(n, p.start(j+1)); i++ {
						if p.at(i) != j {
							t.Fatalf("split(%d, %d, %d): column %d is in panel %d, not %d", n, lanes, vectors, i, j, p.at(i))
						}
					}
				}
				if p.start(0) != 0 || p.start(p.count) != roundUp(n, lanes) {
					t.Fatalf("split(%d, %d, %d) covers %d to %d", n, lanes, vectors, p.start(0), p.start(p.count))
				}
			}
		}
	}
}
