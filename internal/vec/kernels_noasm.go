//go:build noasm || !(amd64 || arm64)

package vec

func expBlocks(blocks int, dst, src *float32) { expPortable(blocks, dst, src) }

func expSumBlocks(blocks int, dst, src *float32, shift float32, sum *[block]float32) {
	expSumPortable(blocks, dst, src, shift, sum)
}

func siluMulBlocks(blocks int, dst, gate, up *float32) { siluMulPortable(blocks, dst, gate, up) }

func dotBlocks(blocks int, x, y *float32, sum *[dotLanes]float32) { dotPortable(blocks, x, y, sum) }

func dotF64Blocks(blocks int, x, y *float32, sum *[block]float64) {
	dotF64Portable(blocks, x, y, sum)
}

func axpyBlocks(blocks int, a float32, x, dst *float32) { axpyPortable(blocks, a, x, dst) }

func scaleBlocks(blocks int, a float32, dst *float32) { scalePortable(blocks, a, dst) }

func scaleMulBlocks(blocks int, dst, x *float32, a float32, w *float32) {
	scaleMulPortable(blocks, dst, x, a, w)
}

func maxBlocks(blocks int, x *float32, lanes *[block]float32) { maxPortable(blocks, x, lanes) }

func narrowBlocks(blocks int, dst *uint16, src *float32) (special bool) {
	return narrowPortable(blocks, dst, src)
}

func widenBlocks(blocks int, dst *float32, src *uint16) { widenPortable(blocks, dst, src) }
