package model

import (
	"sync"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/vec"
)

// queryBlock is how many queries of a head are scored at once: a head holds queryBlock x length scores, never
// length x length.
const queryBlock = 128

// serial runs the kernels inside tasks that are parallel already.
var serial = blas.New(1)

// head is causal softmax attention of one head over one sequence: q, k [n, dk], v [n, dv], each with its row stride.
type head struct {
	n, dk, dv     int
	q, k, v       []float32
	ldq, ldk, ldv int
	scale         float32
}

// probabilities sets p, row-major with row stride hi, to the attention of queries lo to hi-1 over keys 0 to hi-1:
// softmax(scale q k^T), zero for keys after the query.
func (h *head) probabilities(lo, hi int, p []float32) {
	serial.Sgemm(false, true, hi-lo, hi, h.dk, h.scale, h.q[lo*h.ldq:], h.ldq, h.k, h.ldk, 0, p, hi)
	for m := lo; m < hi; m++ {
		row := p[(m-lo)*hi : (m-lo+1)*hi]
		vec.Softmax(row[:m+1])
		clear(row[m+1:])
	}
}

// eachBlock calls visit with the attention of one block of queries after the other, as [head.probabilities] sets it; p is
// valid during the call.
func (h *head) eachBlock(visit func(lo, hi int, p []float32)) {
	p := scores.get(min(queryBlock, h.n) * h.n)
	defer scores.put(p)
	for lo := 0; lo < h.n; lo += queryBlock {
		hi := min(h.n, lo+queryBlock)
		h.probabilities(lo, hi, p)
		visit(lo, hi, p)
	}
}

// forward sets out [n, dv] (row stride ldo) to the attention's output.
func (h *head) forward(out []float32, ldo int) {
	h.eachBlock(func(lo, hi int, p []float32) {
		serial.Sgemm(false, false, hi-lo, h.dv, hi, 1, p, hi, h.v, h.ldv, 0, out[lo*ldo:], ldo)
	})
}

// buffers recycles scratch slices between tasks; their contents are not cleared.
type buffers struct{ pool sync.Pool }

var scores buffers

func (b *buffers) get(n int) []float32 {
	if s, ok := b.pool.Get().(*[]float32); ok && cap(*s) >= n {
		return (*s)[:n]
	}
	return make([]float32, n)
}

func (b *buffers) put(s []float32) { b.pool.Put(&s) }
