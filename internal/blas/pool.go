package blas

import (
	"math/bits"
	"sync"
	"unsafe"

	"github.com/mlaconvert/mlaconvert/internal/hugepage"
)

// poolBytes is the most memory that one pool keeps for reuse.
const poolBytes = 32 << 20

// A pool hands out scratch memory that starts on a cache line, and keeps what is
// returned, up to poolBytes, for the next caller.
type pool[T float] struct {
	mu   sync.Mutex
	free [bits.UintSize][]*scratch[T] // by the logarithm of the capacity
	kept uintptr                      // bytes in free
}

// scratch is memory from a pool, of arbitrary content.
type scratch[T float] struct {
	data   []T
	class  int
	mapped []byte // the memory under data if it is not on the heap
}

var (
	pool32 pool[float32]
	pool64 pool[float64]
)

// get returns scratch of at least n elements.
func (p *pool[T]) get(n int) *scratch[T] {
	class := bits.Len(uint(max(n, 1) - 1))
	p.mu.Lock()
	if l := p.free[class]; len(l) > 0 {
		s := l[len(l)-1]
		p.free[class] = l[:len(l)-1]
		p.kept -= s.bytes()
		p.mu.Unlock()
		return s
	}
	p.mu.Unlock()
	return newScratch[T](class)
}

// put takes back what get returned.
func (p *pool[T]) put(s *scratch[T]) {
	p.mu.Lock()
	keep := p.kept+s.bytes() <= poolBytes
	if keep {
		p.free[s.class] = append(p.free[s.class], s)
		p.kept += s.bytes()
	}
	p.mu.Unlock()
	if !keep && s.mapped != nil {
		hugepage.Unmap(s.mapped)
	}
}

func (s *scratch[T]) bytes() uintptr {
	if s.mapped != nil {
		return uintptr(len(s.mapped))
	}
	return uintptr(len(s.data)) * unsafe.Sizeof(s.data[0])
}

// newScratch allocates 1<<class elements. Large scratch comes from outside the
// heap if the system has huge pages for it, which spare the products about a
// twentieth of their time.
func newScratch[T float](class int) *scratch[T] {
	var t T
	n, size := 1<<class, unsafe.Sizeof(t)
	if b := hugepage.Map(n * int(size)); b != nil {
		return &scratch[T]{unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n), class, b}
	}
	const line = 64
	s := make([]T, n+line/int(size))
	skip := int(-uintptr(unsafe.Pointer(&s[0])) % line / size)
	return &scratch[T]{s[skip : skip+n : skip+n], class, nil}
}
