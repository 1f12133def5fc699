//go:build !noasm

package blas

import (
	"unsafe"

	"github.com/mlaconvert/mlaconvert/internal/blas/isa"
)

func newSuite(level isa.Level) *suite {
	switch level {
	case isa.AVX512:
		return avx512Suite()
	case isa.AVX2:
		return avx2Suite()
	}
	return portableSuite()
}

func avx2Suite() *suite {
	f32 := kernels[float32, float32]{
		lanes: 8, vectors: 2, heights: []int{6, 4, 2, 1}, taskBytes: 384 << 10,
		micro: [][]microKernel[float32]{
			{microF32AVX2x6x1, microF32AVX2x6x2},
			{microF32AVX2x4x1, microF32AVX2x4x2},
			{microF32AVX2x2x1, microF32AVX2x2x2},
			{microF32AVX2x1x1, microF32AVX2x1x2},
		},
		direct:  []microKernel[float32]{directF32AVX2x6x1, directF32AVX2x6x2},
		packA:   packer[float32, float32]{4, 8, transposeF32x4, 4, copyF32x4},
		packB:   packer[float32, float32]{8, 8, transposeF32x8, 8, copyF32x8},
		dotRows: []int{1},
		dot:     []func(int, *float32, int, *float32, int, *float32){dotF32AVX2x1},
	}
	f64 := kernels[float64, float64]{
		lanes: 4, vectors: 2, heights: []int{6, 4, 2, 1}, taskBytes: 384 << 10,
		micro: [][]microKernel[float64]{
			{microF64AVX2x6x1, microF64AVX2x6x2},
			{microF64AVX2x4x1, microF64AVX2x4x2},
			{microF64AVX2x2x1, microF64AVX2x2x2},
			{microF64AVX2x1x1, microF64AVX2x1x2},
		},
		direct:  []microKernel[float64]{directF64AVX2x6x1, directF64AVX2x6x2},
		packA:   packer[float64, float64]{4, 8, transposeF64x4, 4, copyF64x4},
		packB:   packer[float64, float64]{4, 8, transposeF64x4, 4, copyF64x4},
		dotRows: []int{1},
		dot:     []func(int, *float64, int, *float64, int, *float64){dotF64AVX2x1},
		both:    bothF64AVX2,
	}
	return x86Suite(isa.AVX2, f32, f64, []func(int, *float32, int, *uint16, int, *float32){dotBF16AVX2x1})
}

func avx512Suite() *suite {
	f32 := kernels[float32, float32]{
		lanes: 16, vectors: 3, heights: []int{8, 4, 2, 1}, taskBytes: 800 << 10,
		micro: oneByOne(16, [][]tileKernel[float32]{
			{microF32AVX512x8x1, microF32AVX512x8x2, microF32AVX512x8x3},
			{microF32AVX512x4x1, microF32AVX512x4x2, microF32AVX512x4x3},
			{microF32AVX512x2x1, microF32AVX512x2x2, microF32AVX512x2x3},
			{microF32AVX512x1x1, microF32AVX512x1x2, microF32AVX512x1x3},
		}),
		packA:   packer[float32, float32]{8, 8, transposeF32x8, 8, copyF32x8},
		packB:   packer[float32, float32]{8, 8, transposeF32x8, 8, copyF32x8},
		dotRows: []int{4, 2, 1},
		dot:     []func(int, *float32, int, *float32, int, *float32){dotF32AVX512x4, dotF32AVX512x2, dotF32AVX512x1},
	}
	f64 := kernels[float64, float64]{
		lanes: 8, vectors: 3, heights: []int{8, 4, 2, 1}, taskBytes: 800 << 10,
		micro: oneByOne(8, [][]tileKernel[float64]{
			{microF64AVX512x8x1, microF64AVX512x8x2, microF64AVX512x8x3},
			{microF64AVX512x4x1, microF64AVX512x4x2, microF64AVX512x4x3},
			{microF64AVX512x2x1, microF64AVX512x2x2, microF64AVX512x2x3},
			{microF64AVX512x1x1, microF64AVX512x1x2, microF64AVX512x1x3},
		}),
		packA:   packer[float64, float64]{4, 8, transposeF64x4, 4, copyF64x4},
		packB:   packer[float64, float64]{4, 8, transposeF64x4, 4, copyF64x4},
		dotRows: []int{4, 2, 1},
		dot:     []func(int, *float64, int, *float64, int, *float64){dotF64AVX512x4, dotF64AVX512x2, dotF64AVX512x1},
	}
	return x86Suite(isa.AVX512, f32, f64, []func(int, *float32, int, *uint16, int, *float32){dotBF16AVX512x4, dotBF16AVX512x2, dotBF16AVX512x1})
}

// x86Suite completes a suite: the product with bfloat16 differs from that in
// float32 only in how B is read.
func x86Suite(level isa.Level, f32 kernels[float32, float32], f64 kernels[float64, float64], dotBF16 []func(int, *float32, int, *uint16, int, *float32)) *suite {
	return &suite{
		level: level, f32: f32, f64: f64,
		bf16: kernels[float32, uint16]{
			lanes: f32.lanes, vectors: f32.vectors, heights: f32.heights, micro: f32.micro, direct: f32.direct, taskBytes: f32.taskBytes,
			packA:   f32.packA,
			packB:   packer[float32, uint16]{8, 8, transposeBF16x8, 8, widenRows},
			dotRows: f32.dotRows,
			dot:     dotBF16,
		},
		addScaled: addScaledF64,
	}
}

func copyF32x8(rows int, src *float32, srcStride int, dst *float32, dstStride int, units int) {
	copyRows(rows, (*byte)(unsafe.Pointer(src)), srcStride, (*byte)(unsafe.Pointer(dst)), dstStride, units)
}

func copyF64x4(rows int, src *float64, srcStride int, dst *float64, dstStride int, units int) {
	copyRows(rows, (*byte)(unsafe.Pointer(src)), srcStride, (*byte)(unsafe.Pointer(dst)), dstStride, units)
}

// copyF32x4 copies units of half the length that copyRows takes.
func copyF32x4(rows int, src *float32, srcStride int, dst *float32, dstStride int, units int) {
	for p := range rows {
		for u := range units {
			*(*[4]float32)(unsafe.Pointer(at(dst, p, dstStride, 4*u))) = *(*[4]float32)(unsafe.Pointer(at(src, p, srcStride, 4*u)))
		}
	}
}
