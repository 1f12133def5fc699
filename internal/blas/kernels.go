package blas

import "github.com/mlaconvert/mlaconvert/internal/blas/isa"

// float is an element type of the products.
type float interface{ float32 | float64 }

// microKernel computes a tile C = alpha*A*B + beta*C from A packed by steps of
// the inner dimension and rows of B that lie bStride bytes apart. Strides are in
// bytes; C is not read if beta is zero.
type microKernel[T float] func(k int, a, b *T, bStride int, c *T, cStride int, alpha, beta T)

// directKernel is a microKernel that takes rows of A that lie aStride bytes apart.
type directKernel[T float] func(k int, a *T, aStride int, b *T, bStride int, c *T, cStride int, alpha, beta T)

// kernels are the assembly (or portable) routines of one level for products in T
// of a matrix of T with a matrix of S, which is T or bfloat16.
type kernels[T float, S any] struct {
	lanes   int   // elements of a vector
	vectors int   // largest number of vectors across a tile
	heights []int // rows of the tiles, largest first; ends in 1
	// micro[i][v-1] computes a tile of heights[i] rows and v vectors.
	micro [][]microKernel[T]
	// direct[v-1] computes a tile of heights[0] rows and v vectors with A where it lies; nil if there are none.
	direct []directKernel[T]

	// taskBytes is the size of the block of B that a goroutine packs for itself
	// and runs all rows of A against: it stays in the second-level cache.
	taskBytes int

	packA packer[T, T]
	packB packer[T, S]

	// dot[i] computes out[r*dotCols+c] = A[r]·B[c] for dotRows[i] rows of A and
	// dotCols rows of B over blocks*dotBlock elements; largest first, ending
	// in 1. Strides are in bytes.
	dotRows []int
	dot     []func(blocks int, a *T, aStride int, b *S, bStride int, out *T)
}

// dotCols is the number of rows of B that the dot kernels take at once.
const dotCols = 4

// packer rearranges a matrix of S into panels of T. Strides are in bytes.
type packer[T float, S any] struct {
	// transpose writes group rows of src, of columns*blocks elements each, as
	// columns.
	group, columns int
	transpose      func(blocks int, src *S, srcStride int, dst *T, dstStride int)
	// copy copies rows of units*unit elements.
	unit int
	copy func(rows int, src *S, srcStride int, dst *T, dstStride int, units int)
}

// suite is the set of kernels of one level.
type suite struct {
	level isa.Level
	f32   kernels[float32, float32]
	f64   kernels[float64, float64]
	bf16  kernels[float32, uint16]
	// addScaled adds alpha*src to dst over 8*blocks elements.
	addScaled func(blocks int, alpha float64, src *float32, dst *float64)
}

// Features names the kernels in use: "avx512", "avx2", "neon" or "portable".
// The environment variable MLACONVERT_KERNEL selects a lower level than the
// machine's best; isa.Err tells whether it could be followed.
func Features() string { return isa.Active().String() }
