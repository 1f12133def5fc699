//go:build !noasm

package vec

import "github.com/mlaconvert/mlaconvert/internal/blas/isa"

func expBlocks(blocks int, dst, src *float32) {
	switch level {
	case isa.AVX512:
		expAVX512(blocks, dst, src, &expConstants.low[0])
	case isa.AVX2:
		expAVX2(blocks, dst, src, &expConstants.low[0])
	default:
		expPortable(blocks, dst, src)
	}
}

func expSumBlocks(blocks int, dst, src *float32, shift float32, sum *[block]float32) {
	switch level {
	case isa.AVX512:
		expSumAVX512(blocks, dst, src, shift, &sum[0], &expConstants.low[0])
	case isa.AVX2:
		expSumAVX2(blocks, dst, src, shift, &sum[0], &expConstants.low[0])
	default:
		expSumPortable(blocks, dst, src, shift, sum)
	}
}

func siluMulBlocks(blocks int, dst, gate, up *float32) {
	switch level {
	case isa.AVX512:
		siluMulAVX512(blocks, dst, gate, up, &expConstants.low[0])
	case isa.AVX2:
		siluMulAVX2(blocks, dst, gate, up, &expConstants.low[0])
	default:
		siluMulPortable(blocks, dst, gate, up)
	}
}

func dotBlocks(blocks int, x, y *float32, sum *[dotLanes]float32) {
	switch level {
	case isa.AVX512:
		dotAVX512(blocks, x, y, &sum[0])
	case isa.AVX2:
		dotAVX2(blocks, x, y, &sum[0])
	default:
		dotPortable(blocks, x, y, sum)
	}
}

func dotF64Blocks(blocks int, x, y *float32, sum *[block]float64) {
	switch level {
	case isa.AVX512:
		dotF64AVX512(blocks, x, y, &sum[0])
	case isa.AVX2:
		dotF64AVX2(blocks, x, y, &sum[0])
	default:
		dotF64Portable(blocks, x, y, sum)
	}
}

func axpyBlocks(blocks int, a float32, x, dst *float32) {
	switch level {
	case isa.AVX512:
		axpyAVX512(blocks, a, x, dst)
	case isa.AVX2:
		axpyAVX2(blocks, a, x, dst)
	default:
		axpyPortable(blocks, a, x, dst)
	}
}

func scaleBlocks(blocks int, a float32, dst *float32) {
	switch level {
	case isa.AVX512:
		scaleAVX512(blocks, a, dst)
	case isa.AVX2:
		scaleAVX2(blocks, a, dst)
	default:
		scalePortable(blocks, a, dst)
	}
}

func scaleMulBlocks(blocks int, dst, x *float32, a float32, w *float32) {
	switch level {
	case isa.AVX512:
		scaleMulAVX512(blocks, dst, x, a, w)
	case isa.AVX2:
		scaleMulAVX2(blocks, dst, x, a, w)
	default:
		scaleMulPortable(blocks, dst, x, a, w)
	}
}

func maxBlocks(blocks int, x *float32, lanes *[block]float32) {
	switch level {
	case isa.AVX512:
		maxAVX512(blocks, x, &lanes[0])
	case isa.AVX2:
		maxAVX2(blocks, x, &lanes[0])
	default:
		maxPortable(blocks, x, lanes)
	}
}

func narrowBlocks(blocks int, dst *uint16, src *float32) (special bool) {
	switch level {
	case isa.AVX512, isa.AVX2:
		var mask uint32
		narrowAVX2(blocks, dst, src, &mask)
		return mask != 0
	default:
		return narrowPortable(blocks, dst, src)
	}
}

func widenBlocks(blocks int, dst *float32, src *uint16) {
	switch level {
	case isa.AVX512:
		widenAVX512(blocks, dst, src)
	case isa.AVX2:
		widenAVX2(blocks, dst, src)
	default:
		widenPortable(blocks, dst, src)
	}
}
