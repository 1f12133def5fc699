//go:build !noasm

package blas

import (
	"unsafe"

	"github.com/mlaconvert/mlaconvert/internal/blas/isa"
)

func newSuite(level isa.Level) *suite {
	if level == isa.NEON {
		return neonSuite()
	}
	return portableSuite()
}

func neonSuite() *suite {
	const taskBytes = 512 << 10
	f32 := kernels[float32, float32]{
		lanes: 4, vectors: 3, heights: []int{8, 4, 2, 1}, taskBytes: taskBytes,
		micro: oneByOne(4, [][]tileKernel[float32]{
			{microF32NEONx8x1, microF32NEONx8x2, microF32NEONx8x3},
			{microF32NEONx4x1, microF32NEONx4x2, microF32NEONx4x3},
			{microF32NEONx2x1, microF32NEONx2x2, microF32NEONx2x3},
			{microF32NEONx1x1, microF32NEONx1x2, microF32NEONx1x3},
		}),
		packA:   packer[float32, float32]{4, 4, transposeF32NEON, 4, copyF32NEON},
		packB:   packer[float32, float32]{4, 4, transposeF32NEON, 4, copyF32NEON},
		dotRows: []int{1},
		dot:     []func(int, *float32, int, *float32, int, *float32){dotF32NEONx1},
	}
	f64 := kernels[float64, float64]{
		lanes: 2, vectors: 3, heights: []int{8, 4, 2, 1}, taskBytes: taskBytes,
		micro: oneByOne(2, [][]tileKernel[float64]{
			{microF64NEONx8x1, microF64NEONx8x2, microF64NEONx8x3},
			{microF64NEONx4x1, microF64NEONx4x2, microF64NEONx4x3},
			{microF64NEONx2x1, microF64NEONx2x2, microF64NEONx2x3},
			{microF64NEONx1x1, microF64NEONx1x2, microF64NEONx1x3},
		}),
		packA:   packer[float64, float64]{2, 2, transposeF64NEON, 2, copyF64NEON},
		packB:   packer[float64, float64]{2, 2, transposeF64NEON, 2, copyF64NEON},
		dotRows: []int{1},
		dot:     []func(int, *float64, int, *float64, int, *float64){dotF64NEONx1},
	}
	return &suite{
		level: isa.NEON, f32: f32, f64: f64,
		bf16: kernels[float32, uint16]{
			lanes: f32.lanes, vectors: f32.vectors, heights: f32.heights, micro: f32.micro, taskBytes: taskBytes,
			packA:   f32.packA,
			packB:   packer[float32, uint16]{4, 4, transposeBF16NEON, 4, widenRowsNEON},
			dotRows: []int{1},
			dot:     []func(int, *float32, int, *uint16, int, *float32){dotBF16NEONx1},
		},
		addScaled: addScaledF64NEON,
	}
}

func copyF32NEON(rows int, src *float32, srcStride int, dst *float32, dstStride int, units int) {
	copyRowsNEON(rows, (*byte)(unsafe.Pointer(src)), srcStride, (*byte)(unsafe.Pointer(dst)), dstStride, units)
}

func copyF64NEON(rows int, src *float64, srcStride int, dst *float64, dstStride int, units int) {
	copyRowsNEON(rows, (*byte)(unsafe.Pointer(src)), srcStride, (*byte)(unsafe.Pointer(dst)), dstStride, units)
}
