//go:build !noasm

package vec

import "github.com/mlaconvert/mlaconvert/internal/blas/isa"

func expBlocks(blocks int, dst, src *float32) {
	if level == isa.NEON {
		expNEON(blocks, dst, src, &expConstants.low[0])
		return
	}
	expPortable(blocks, dst, src)
}

func expSumBlocks(blocks int, dst, src *float32, shift float32, sum *[block]float32) {
	if level == isa.NEON {
		expSumNEON(blocks, dst, src, shift, &sum[0], &expConstants.low[0])
		return
	}
	expSumPortable(blocks, dst, src, shift, sum)
}

func siluMulBlocks(blocks int, dst, gate, up *float32) {
	if level == isa.NEON {
		siluMulNEON(blocks, dst, gate, up, &expConstants.low[0])
		return
	}
	siluMulPortable(blocks, dst, gate, up)
}

func dotBlocks(blocks int, x, y *float32, sum *[dotLanes]float32) {
	if level == isa.NEON {
		dotNEON(blocks, x, y, &sum[0])
		return
	}
	dotPortable(blocks, x, y, sum)
}

func dotF64Blocks(blocks int, x, y *float32, sum *[block]float64) {
	if level == isa.NEON {
		dotF64NEON(blocks, x, y, &sum[0])
		return
	}
	dotF64Portable(blocks, x, y, sum)
}

func axpyBlocks(blocks int, a float32, x, dst *float32) {
	if level == isa.NEON {
		axpyNEON(blocks, a, x, dst)
		return
	}
	axpyPortable(blocks, a, x, dst)
}

func scaleBlocks(blocks int, a float32, dst *float32) {
	if level == isa.NEON {
		scaleNEON(blocks, a, dst)
		return
	}
	scalePortable(blocks, a, dst)
}

func scaleMulBlocks(blocks int, dst, x *float32, a float32, w *float32) {
	if level == isa.NEON {
		scaleMulNEON(blocks, dst, x, a, w)
		return
	}
	scaleMulPortable(blocks, dst, x, a, w)
}

func maxBlocks(blocks int, x *float32, lanes *[block]float32) {
	if level == isa.NEON {
		maxNEON(blocks, x, &lanes[0])
		return
	}
	maxPortable(blocks, x, lanes)
}

func narrowBlocks(blocks int, dst *uint16, src *float32) (special bool) {
	return narrowPortable(blocks, dst, src)
}

func widenBlocks(blocks int, dst *float32, src *uint16) {
	if level == isa.NEON {
		widenNEON(blocks, dst, src)
		return
	}
	widenPortable(blocks, dst, src)
}
