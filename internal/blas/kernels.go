package blas

import "github.com/mlaconvert/mlaconvert/internal/blas/isa"

// float is an element type of the products.
type float interface{ float32 | float64 }

// microKernel computes tiles side by side, C = alpha*A*B + beta*C, from a panel of
// A and panels of B that lie bNext bytes apart: A packed by steps of the inner
// dimension, or rows that lie aStride bytes apart; rows of B that lie bStride bytes
// apart. Strides are in bytes; C is not read if beta is zero.
type microKernel[T float] func(k int, a *T, aStride int, b *T, bStride, bNext int, c *T, cStride, tiles int, alpha, beta T)

// tileKernel is a microKernel of one tile and packed A.
type tileKernel[T float] func(k int, a, b *T, bStride int, c *T, cStride int, alpha, beta T)

// oneByOne makes microKernels of kernels whose tiles are lanes columns wide, or two or three times as many.
func oneByOne[T float](lanes int, table [][]tileKernel[T]) [][]microKernel[T] {
	out := make([][]microKernel[T], len(table))
	for i, row := range table {
		for v, tile := range row {
			width := (v + 1) * lanes
			out[i] = append(out[i], func(k int, a *T, _ int, b *T, bStride, bNext int, c *T, cStride, tiles int, alpha, beta T) {
				for t := range tiles {
					tile(k, a, at(b, t, bNext, 0), bStride, at(c, 0, 0, t*width), cStride, alpha, beta)
				}
			})
		}
	}
	return out
}

// kernels are the assembly (or portable) routines of one level for products in T
// of a matrix of T with a matrix of S, which is T or bfloat16.
type kernels[T float, S any] struct {
	lanes   int   // elements of a vector
	vectors int   // largest number of vectors across a tile
	heights []int // rows of the tiles, largest first; ends in 1
	// micro[i][v-1] computes tiles of heights[i] rows and v vectors, of packed A.
	micro [][]microKernel[T]
	// direct[v-1] computes tiles of heights[0] rows and v vectors with A where it lies; nil if there are none.
	direct []microKernel[T]

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

	// both computes out[i] = A[i]·x for dotCols rows of A over blocks*dotBlock
	// elements, as dot would, and adds w[0]*A[0] + w[1]*A[1] + ... to sum; nil if
	// there is none. aStride is in bytes.
	both func(blocks int, a *T, aStride int, x, w, sum, out *T)
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
