package main

import "fmt"

// elem is an element type of the matrices.
type elem struct {
	tag, goType string
	size, lanes int
	arr         string // of a vector, in Go's syntax
	double      bool
}

var (
	f32 = elem{"F32", "float32", 4, 4, "S4", false}
	f64 = elem{"F64", "float64", 8, 2, "D2", true}
)

const dotCols = 4

func blasKernels(f *file) {
	for _, t := range []elem{f32, f64} {
		for _, mr := range []int{1, 2, 4, 8} {
			for nv := 1; nv <= 3; nv++ {
				micro(f, t, mr, nv)
			}
		}
		dot(f, t, false)
	}
	dot(f, f32, true)
	transposeF32(f, false)
	transposeF32(f, true)
	transposeF64(f)
	copyRows(f, false)
	copyRows(f, true)
	addScaled(f)
}

// micro writes the kernel of an mr x nv-vector tile of C, which stays in V0 to
// V23. A step of the inner dimension loads nv vectors of B to V24 to V26 and mr
// elements of A from V27 on, and multiplies the former by each of the latter.
func micro(f *file, t elem, mr, nv int) {
	const unroll = 4
	fn := f.text(fmt.Sprintf("micro%sNEONx%dx%d", t.tag, mr, nv),
		fmt.Sprintf("k int, a *%[1]s, b *%[1]s, bStride int, c *%[1]s, cStride int, alpha %[1]s, beta %[1]s", t.goType), "",
		fmt.Sprintf("computes C = alpha*A*B + beta*C for a tile of %d rows and %d columns. A is packed, %d elements a step; B has a row of the tile's columns a step, bStride bytes apart. C is not read if beta is zero.", mr, nv*t.lanes, mr))
	const k, a, b, bStride, c, cStride, turns, row, nextPanel = 0, 1, 2, 3, 4, 5, 6, 7, 8
	for reg, name := range []string{"k", "a", "b", "bStride", "c", "cStride"} {
		fn.load(name, reg)
	}
	const bv, av = 24, 27
	acc := func(i, v int) int { return i*nv + v }
	fn.op("MOVD R%d, R%d", c, row)
	for range mr {
		fn.op("PRFM (R%d), PLDL1KEEP", row)
		fn.op("ADD R%d, R%d", cStride, row)
	}
	for r := range mr * nv {
		fn.op("VEOR V%d.B16, V%d.B16, V%d.B16", r, r, r)
	}
	step := func() {
		fn.op("VLD1 (R%d), %s", b, list(bv, nv, t.arr))
		fn.op("ADD R%d, R%d", bStride, b)
		bytes := mr * t.size
		switch {
		case bytes >= 16:
			fn.op("VLD1.P %d(R%d), %s", bytes, a, list(av, bytes/16, t.arr))
		case t.double:
			fn.op("FMOVD.P 8(R%d), F%d", a, av)
		case mr == 2:
			fn.op("FMOVD.P 8(R%d), F%d", a, av)
		default:
			fn.op("FMOVS.P 4(R%d), F%d", a, av)
		}
		for i := range mr {
			for v := range nv {
				fn.word(fmlaLane(t.double, acc(i, v), bv+v, av+i/t.lanes, i%t.lanes))
			}
		}
	}
	fn.op("LSR $2, R%d, R%d", k, turns)
	fn.op("CBZ R%d, tail", turns)
	// The next panel of A comes from a distant cache: move it up while this one is
	// used.
	fn.op("MOVD $%d, R%d", mr*t.size, nextPanel)
	fn.op("MADD R%d, R%d, R%d, R%d", nextPanel, a, k, nextPanel)
	fn.label("loop")
	for off := 0; off < unroll*mr*t.size; off += 64 {
		fn.op("PRFM %d(R%d), PLDL2KEEP", off, nextPanel)
	}
	fn.op("ADD $%d, R%d", unroll*mr*t.size, nextPanel)
	for range unroll {
		step()
	}
	fn.op("SUBS $1, R%d, R%d", turns, turns)
	fn.op("BNE loop")
	fn.label("tail")
	fn.op("ANDS $%d, R%d, R%d", unroll-1, k, k)
	fn.op("BEQ store")
	fn.label("single")
	step()
	fn.op("SUBS $1, R%d, R%d", k, k)
	fn.op("BNE single")
	fn.label("store")
	const alpha, beta, old = 27, 28, 24
	if t.double {
		fn.op("FMOVD %s, F%d", fn.arg("alpha"), alpha)
		fn.op("FMOVD %s, F%d", fn.arg("beta"), beta)
		fn.op("VDUP V%d.D[0], V%d.D2", alpha, alpha)
		fn.op("VDUP V%d.D[0], V%d.D2", beta, beta)
		fn.op("FMOVD F%d, R%d", beta, turns)
		fn.op("LSL $1, R%d, R%d", turns, turns)
	} else {
		fn.op("FMOVS %s, F%d", fn.arg("alpha"), alpha)
		fn.op("FMOVS %s, F%d", fn.arg("beta"), beta)
		fn.op("VDUP V%d.S[0], V%d.S4", alpha, alpha)
		fn.op("VDUP V%d.S[0], V%d.S4", beta, beta)
		fn.op("FMOVS F%d, R%d", beta, turns)
		fn.op("LSLW $1, R%d, R%d", turns, turns)
	}
	// Beta is zero if nothing but its sign bit is set.
	fn.op("CBZ R%d, overwrite", turns)
	for i := range mr {
		fn.op("VLD1 (R%d), %s", c, list(old, nv, t.arr))
		for v := range nv {
			fn.word(fmul(t.double, old+v, old+v, beta))
			fn.op("VFMLA V%d.%s, V%d.%s, V%d.%s", alpha, t.arr, acc(i, v), t.arr, old+v, t.arr)
		}
		fn.op("VST1 %s, (R%d)", list(old, nv, t.arr), c)
		fn.op("ADD R%d, R%d", cStride, c)
	}
	fn.op("RET")
	fn.label("overwrite")
	for i := range mr {
		for v := range nv {
			fn.word(fmul(t.double, acc(i, v), acc(i, v), alpha))
		}
		fn.op("VST1 %s, (R%d)", list(acc(i, 0), nv, t.arr), c)
		fn.op("ADD R%d, R%d", cStride, c)
	}
	fn.op("RET")
}

// dot writes the kernel of four inner products. Each is summed in 64 bytes' worth
// of lanes, which then are added as a tree of halves, as on amd64.
func dot(f *file, t elem, widen bool) {
	tag, bType := t.tag, t.goType
	if widen {
		tag, bType = "BF16", "uint16"
	}
	fn := f.text(fmt.Sprintf("dot%sNEONx1", tag),
		fmt.Sprintf("blocks int, a *%s, aStride int, b *%s, bStride int, out *%s", t.goType, bType, t.goType), "",
		fmt.Sprintf("computes the inner products of a row of A with %d rows of B, over %d*blocks elements: out[j] = A·B[j]. bStride is in bytes; aStride is not used.", dotCols, 64/t.size))
	const blocks, a, bStride, out, b0 = 0, 1, 2, 3, 4
	fn.load("blocks", blocks)
	fn.load("a", a)
	fn.load("bStride", bStride)
	fn.load("out", out)
	fn.load("b", b0)
	for j := 1; j < dotCols; j++ {
		fn.op("ADD R%d, R%d, R%d", bStride, b0+j-1, b0+j)
	}
	const parts = 4
	const av, bv, narrow = 16, 20, 24
	for r := range dotCols * parts {
		fn.op("VEOR V%d.B16, V%d.B16, V%d.B16", r, r, r)
	}
	fn.label("loop")
	fn.op("VLD1.P 64(R%d), %s", a, list(av, parts, t.arr))
	for j := range dotCols {
		if widen {
			fn.op("VLD1.P 32(R%d), %s", b0+j, list(narrow, 2, "H8"))
			for h := range 2 {
				fn.word(shll(bv+2*h, narrow+h))
				fn.word(shll2(bv+2*h+1, narrow+h))
			}
		} else {
			fn.op("VLD1.P 64(R%d), %s", b0+j, list(bv, parts, t.arr))
		}
		for p := range parts {
			fn.op("VFMLA V%d.%s, V%d.%s, V%d.%s", bv+p, t.arr, av+p, t.arr, j*parts+p, t.arr)
		}
	}
	fn.op("SUBS $1, R%d, R%d", blocks, blocks)
	fn.op("BNE loop")
	for j := range dotCols {
		r := j * parts
		fn.word(fadd(t.double, r, r, r+2))
		fn.word(fadd(t.double, r+1, r+1, r+3))
		fn.word(fadd(t.double, r, r, r+1))
		if !t.double {
			fn.op("VEXT $8, V%d.B16, V%d.B16, V%d.B16", r, r, r+1)
			fn.word(fadd(false, r, r, r+1)) // the two lower lanes count
		}
	}
	if t.double {
		fn.word(faddp(true, 0, 0, parts))
		fn.word(faddp(true, 1, 2*parts, 3*parts))
		fn.op("VST1 %s, (R%d)", list(0, 2, "D2"), out)
	} else {
		fn.op("VZIP1 V%d.D2, V%d.D2, V%d.D2", parts, 0, 0)
		fn.op("VZIP1 V%d.D2, V%d.D2, V%d.D2", 3*parts, 2*parts, 2*parts)
		fn.word(faddp(false, 0, 0, 2*parts))
		fn.op("VST1 %s, (R%d)", list(0, 1, "S4"), out)
	}
	fn.op("RET")
}

// transposeF32 writes the transposition of four rows of floats or bfloat16.
func transposeF32(f *file, widen bool) {
	name, src, doc := "transposeF32NEON", "float32", "writes 4 rows of 4*blocks columns of src, srcStride bytes apart, as columns: 4 elements per column, dstStride bytes apart."
	if widen {
		name, src, doc = "transposeBF16NEON", "uint16", "is transposeF32NEON for rows of bfloat16, which it widens."
	}
	fn := f.text(name, "blocks int, src *"+src+", srcStride int, dst *float32, dstStride int", "", doc)
	const blocks, srcStride, dst, dstStride, row = 0, 1, 2, 3, 4
	fn.load("blocks", blocks)
	fn.load("srcStride", srcStride)
	fn.load("dst", dst)
	fn.load("dstStride", dstStride)
	fn.load("src", row)
	for i := 1; i < 4; i++ {
		fn.op("ADD R%d, R%d, R%d", srcStride, row+i-1, row+i)
	}
	fn.label("loop")
	for i := range 4 {
		if widen {
			fn.op("VLD1.P 8(R%d), [V%d.H4]", row+i, i)
			fn.word(shll(i, i))
		} else {
			fn.op("VLD1.P 16(R%d), [V%d.S4]", row+i, i)
		}
	}
	zip := func(half, n, m, d int) { fn.op("VZIP%d V%d.S4, V%d.S4, V%d.S4", half, m, n, d) }
	zip(1, 0, 2, 4)
	zip(2, 0, 2, 5)
	zip(1, 1, 3, 6)
	zip(2, 1, 3, 7)
	zip(1, 4, 6, 0)
	zip(2, 4, 6, 1)
	zip(1, 5, 7, 2)
	zip(2, 5, 7, 3)
	for i := range 4 {
		fn.op("VST1 [V%d.S4], (R%d)", i, dst)
		fn.op("ADD R%d, R%d", dstStride, dst)
	}
	fn.op("SUBS $1, R%d, R%d", blocks, blocks)
	fn.op("BNE loop")
	fn.op("RET")
}

func transposeF64(f *file) {
	fn := f.text("transposeF64NEON", "blocks int, src *float64, srcStride int, dst *float64, dstStride int", "",
		"writes 2 rows of 2*blocks columns of src, srcStride bytes apart, as columns: 2 elements per column, dstStride bytes apart.")
	const blocks, srcStride, dst, dstStride, row = 0, 1, 2, 3, 4
	fn.load("blocks", blocks)
	fn.load("srcStride", srcStride)
	fn.load("dst", dst)
	fn.load("dstStride", dstStride)
	fn.load("src", row)
	fn.op("ADD R%d, R%d, R%d", srcStride, row, row+1)
	fn.label("loop")
	fn.op("VLD1.P 16(R%d), [V0.D2]", row)
	fn.op("VLD1.P 16(R%d), [V1.D2]", row+1)
	for half := 1; half <= 2; half++ {
		fn.op("VZIP%d V1.D2, V0.D2, V2.D2", half)
		fn.op("VST1 [V2.D2], (R%d)", dst)
		fn.op("ADD R%d, R%d", dstStride, dst)
	}
	fn.op("SUBS $1, R%d, R%d", blocks, blocks)
	fn.op("BNE loop")
	fn.op("RET")
}

// copyRows writes the copy of rows, or their widening from bfloat16.
func copyRows(f *file, widen bool) {
	name, params, doc := "copyRowsNEON", "rows int, src *byte, srcStride int, dst *byte, dstStride int, units int", "copies rows of units*16 bytes; the strides are in bytes."
	if widen {
		name, params, doc = "widenRowsNEON", "rows int, src *uint16, srcStride int, dst *float32, dstStride int, units int", "widens rows of units*4 bfloat16 to float32; the strides are in bytes."
	}
	fn := f.text(name, params, "", doc)
	const rows, src, srcStride, dst, dstStride, units, s, d, n = 0, 1, 2, 3, 4, 5, 6, 7, 8
	for reg, name := range []string{"rows", "src", "srcStride", "dst", "dstStride", "units"} {
		fn.load(name, reg)
	}
	fn.label("row")
	fn.op("MOVD R%d, R%d", src, s)
	fn.op("MOVD R%d, R%d", dst, d)
	fn.op("MOVD R%d, R%d", units, n)
	fn.label("unit")
	if widen {
		fn.op("VLD1.P 8(R%d), [V0.H4]", s)
		fn.word(shll(0, 0))
	} else {
		fn.op("VLD1.P 16(R%d), [V0.S4]", s)
	}
	fn.op("VST1.P [V0.S4], 16(R%d)", d)
	fn.op("SUBS $1, R%d, R%d", n, n)
	fn.op("BNE unit")
	fn.op("ADD R%d, R%d", srcStride, src)
	fn.op("ADD R%d, R%d", dstStride, dst)
	fn.op("SUBS $1, R%d, R%d", rows, rows)
	fn.op("BNE row")
	fn.op("RET")
}

func addScaled(f *file) {
	fn := f.text("addScaledF64NEON", "blocks int, alpha float64, src *float32, dst *float64", "",
		"adds alpha*src to dst over 8*blocks elements, in float64.")
	const blocks, src, dst = 0, 1, 2
	fn.load("blocks", blocks)
	fn.load("src", src)
	fn.load("dst", dst)
	fn.op("FMOVD %s, F16", fn.arg("alpha"))
	fn.op("VDUP V16.D[0], V16.D2")
	fn.label("loop")
	fn.op("VLD1.P 32(R%d), [V0.S4, V1.S4]", src)
	fn.op("VLD1 (R%d), %s", dst, list(4, 4, "D2"))
	for i := range 2 {
		fn.word(fcvtl(2, i))
		fn.word(fcvtl2(3, i))
		fn.op("VFMLA V16.D2, V2.D2, V%d.D2", 4+2*i)
		fn.op("VFMLA V16.D2, V3.D2, V%d.D2", 5+2*i)
	}
	fn.op("VST1.P %s, 64(R%d)", list(4, 4, "D2"), dst)
	fn.op("SUBS $1, R%d, R%d", blocks, blocks)
	fn.op("BNE loop")
	fn.op("RET")
}
