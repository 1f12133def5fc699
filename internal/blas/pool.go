package blas

import (
	"math/bits"
	"sync"
	"unsafe"
)

// poolBytes is the most memory that one pool keeps for reuse.
const poolBytes = 32 << 20

// A pool hands out scratch slices that start on a cache line, and keeps
// returned ones, up to poolBytes, for the next caller.
type pool[T any] struct {
	mu   sync.Mutex
	free [bits.UintSize][][]T // by the logarithm of the capacity
	kept int                  // elements in free
}

var (
	pool32 pool[float32]
	pool64 pool[float64]
)

// get returns a slice of n elements of arbitrary value.
func (p *pool[T]) get(n int) []T {
	class := bits.Len(uint(max(n, 1) - 1))
	p.mu.Lock()
	if l := p.free[class]; len(l) > 0 {
		s := l[len(l)-1]
		p.free[class] = l[:len(l)-1]
		p.kept -= 1 << class
		p.mu.Unlock()
		return s[:n]
	}
	p.mu.Unlock()
	return aligned[T](1 << class)[:n]
}

// put takes back a slice that get returned.
func (p *pool[T]) put(s []T) {
	class := bits.Len(uint(cap(s)) - 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if size := int(unsafe.Sizeof(s[0])); (p.kept+cap(s))*size > poolBytes {
		return
	}
	p.free[class] = append(p.free[class], s)
	p.kept += cap(s)
}

// aligned allocates n elements on a 64-byte boundary.
func aligned[T any](n int) []T {
	const line = 64
	var t T
	size := unsafe.Sizeof(t)
	s := make([]T, n+line/int(size))
	skip := 0
	if rest := uintptr(unsafe.Pointer(&s[0])) % line; rest != 0 {
		skip = int((line - rest) / size)
	}
	return s[skip : skip+n : skip+n]
}
