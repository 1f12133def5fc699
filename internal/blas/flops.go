package blas

import (
	"sync/atomic"
	"unsafe"
)

var flops32, flops64 atomic.Int64

// Flops returns how many floating-point operations the products of all engines
// have taken so far in this process, in float32 (with a float32 or a bfloat16 B)
// and in float64: 2mnk for a product, half of that for one triangle of it.
func Flops() (f32, f64 int64) { return flops32.Load(), flops64.Load() }

// count adds the product's operations.
func (g *product[T, S]) count() {
	n := int64(g.m) * int64(g.n) * int64(g.k)
	if g.part == whole {
		n *= 2
	}
	if unsafe.Sizeof(g.alpha) == 4 {
		flops32.Add(n)
	} else {
		flops64.Add(n)
	}
}
