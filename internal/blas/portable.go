package blas

import (
	"math"
	"unsafe"

	"github.com/mlaconvert/mlaconvert/internal/blas/isa"
)

// portableSuite needs no assembly: the fallback, and the oracle of the others.
func portableSuite() *suite {
	f32 := kernels[float32, float32]{
		lanes: 4, vectors: 1, heights: []int{2, 1}, taskBytes: 256 << 10,
		micro:   oneByOne(4, [][]tileKernel[float32]{{micro2x4[float32]}, {micro1x4[float32]}}),
		packA:   portablePacker(same[float32]),
		packB:   portablePacker(same[float32]),
		dotRows: []int{1},
		dot:     []func(int, *float32, int, *float32, int, *float32){dotPortable[float32]},
	}
	f64 := kernels[float64, float64]{
		lanes: 4, vectors: 1, heights: []int{2, 1}, taskBytes: 256 << 10,
		micro:   oneByOne(4, [][]tileKernel[float64]{{micro2x4[float64]}, {micro1x4[float64]}}),
		packA:   portablePacker(same[float64]),
		packB:   portablePacker(same[float64]),
		dotRows: []int{1},
		dot:     []func(int, *float64, int, *float64, int, *float64){dotPortable[float64]},
	}
	return &suite{
		level: isa.Portable, f32: f32, f64: f64,
		bf16: kernels[float32, uint16]{
			lanes: f32.lanes, vectors: f32.vectors, heights: f32.heights, micro: f32.micro, taskBytes: f32.taskBytes,
			packA:   f32.packA,
			packB:   portablePacker(widen),
			dotRows: []int{1},
			dot:     []func(int, *float32, int, *uint16, int, *float32){dotBF16Portable},
		},
		addScaled: addScaledPortable,
	}
}

func same[T any](v T) T { return v }

// widen converts a bfloat16, the upper half of a float32.
func widen(v uint16) float32 { return math.Float32frombits(uint32(v) << 16) }

// at returns the element i rows of stride bytes and j elements from p.
func at[T any](p *T, i, stride, j int) *T {
	return (*T)(unsafe.Add(unsafe.Pointer(p), i*stride+j*int(unsafe.Sizeof(*p))))
}

// micro2x4 keeps its tile in as many scalars as there are registers for.
func micro2x4[T float](k int, a, b *T, bStride int, c *T, cStride int, alpha, beta T) {
	var s00, s01, s02, s03, s10, s11, s12, s13 T
	for p := range k {
		x := (*[2]T)(unsafe.Pointer(at(a, 0, 0, 2*p)))
		y := (*[4]T)(unsafe.Pointer(at(b, p, bStride, 0)))
		x0, x1 := x[0], x[1]
		s00 += x0 * y[0]
		s10 += x1 * y[0]
		s01 += x0 * y[1]
		s11 += x1 * y[1]
		s02 += x0 * y[2]
		s12 += x1 * y[2]
		s03 += x0 * y[3]
		s13 += x1 * y[3]
	}
	storeRow([4]T{s00, s01, s02, s03}, c, alpha, beta)
	storeRow([4]T{s10, s11, s12, s13}, at(c, 1, cStride, 0), alpha, beta)
}

func micro1x4[T float](k int, a, b *T, bStride int, c *T, _ int, alpha, beta T) {
	var s0, s1, s2, s3 T
	for p := range k {
		x, y := *at(a, 0, 0, p), (*[4]T)(unsafe.Pointer(at(b, p, bStride, 0)))
		s0 += x * y[0]
		s1 += x * y[1]
		s2 += x * y[2]
		s3 += x * y[3]
	}
	storeRow([4]T{s0, s1, s2, s3}, c, alpha, beta)
}

func storeRow[T float](s [4]T, c *T, alpha, beta T) {
	row := (*[4]T)(unsafe.Pointer(c))
	for j, v := range s {
		if beta == 0 {
			row[j] = alpha * v
		} else {
			row[j] = alpha*v + beta*row[j]
		}
	}
}

func portablePacker[T float, S any](convert func(S) T) packer[T, S] {
	const n = 4
	return packer[T, S]{
		group: n, columns: n,
		transpose: func(blocks int, src *S, srcStride int, dst *T, dstStride int) {
			for i := range n {
				for p, v := range unsafe.Slice(at(src, i, srcStride, 0), blocks*n) {
					*at(dst, p, dstStride, i) = convert(v)
				}
			}
		},
		unit: n,
		copy: func(rows int, src *S, srcStride int, dst *T, dstStride int, units int) {
			for p := range rows {
				d := unsafe.Slice(at(dst, p, dstStride, 0), units*n)
				for i, v := range unsafe.Slice(at(src, p, srcStride, 0), units*n) {
					d[i] = convert(v)
				}
			}
		},
	}
}

func dotPortable[T float](blocks int, a *T, _ int, b *T, bStride int, out *T) {
	n := blocks * dotBlock[T]()
	x := unsafe.Slice(a, n)
	for j := range dotCols {
		var s [4]T
		y := unsafe.Slice(at(b, j, bStride, 0), n)
		for p := 0; p+4 <= n; p += 4 {
			s[0] += x[p] * y[p]
			s[1] += x[p+1] * y[p+1]
			s[2] += x[p+2] * y[p+2]
			s[3] += x[p+3] * y[p+3]
		}
		*at(out, 0, 0, j) = (s[0] + s[2]) + (s[1] + s[3])
	}
}

func dotBF16Portable(blocks int, a *float32, _ int, b *uint16, bStride int, out *float32) {
	n := blocks * dotBlock[float32]()
	x := unsafe.Slice(a, n)
	for j := range dotCols {
		var s [4]float32
		y := unsafe.Slice(at(b, j, bStride, 0), n)
		for p := 0; p+4 <= n; p += 4 {
			s[0] += x[p] * widen(y[p])
			s[1] += x[p+1] * widen(y[p+1])
			s[2] += x[p+2] * widen(y[p+2])
			s[3] += x[p+3] * widen(y[p+3])
		}
		*at(out, 0, 0, j) = (s[0] + s[2]) + (s[1] + s[3])
	}
}

func addScaledPortable(blocks int, alpha float64, src *float32, dst *float64) {
	d := unsafe.Slice(dst, 8*blocks)
	for i, v := range unsafe.Slice(src, 8*blocks) {
		d[i] += alpha * float64(v)
	}
}
