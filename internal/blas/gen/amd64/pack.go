package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// rowSet addresses rows that lie a stride apart, at a common displacement that
// advance moves: every fourth row has a register, multiples of the stride lead
// to the rows between.
type rowSet struct {
	bases           []reg.GPVirtual
	stride, stride3 reg.GPVirtual
}

func rowsFrom(base, stride reg.GPVirtual, n int) rowSet {
	s := rowSet{[]reg.GPVirtual{base}, stride, GP64()}
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, s.stride3)
	for i := 4; i < n; i += 4 {
		next := GP64()
		LEAQ(Mem{Base: s.bases[len(s.bases)-1], Index: stride, Scale: 4}, next)
		s.bases = append(s.bases, next)
	}
	return s
}

func (s rowSet) at(i, disp int) Mem {
	m := Mem{Base: s.bases[i/4], Disp: disp}
	switch i % 4 {
	case 1:
		m.Index, m.Scale = s.stride, 1
	case 2:
		m.Index, m.Scale = s.stride, 2
	case 3:
		m.Index, m.Scale = s.stride3, 1
	}
	return m
}

func (s rowSet) advance(bytes int) {
	for _, r := range s.bases {
		ADDQ(I32(bytes), r)
	}
}

func transposeParams() (blocks, src, srcStride, dst, dstStride reg.GPVirtual) {
	blocks, src, srcStride, dst, dstStride = GP64(), GP64(), GP64(), GP64(), GP64()
	Load(Param("blocks"), blocks)
	Load(Param("src"), src)
	Load(Param("srcStride"), srcStride)
	Load(Param("dst"), dst)
	Load(Param("dstStride"), dstStride)
	return
}

// quarter transposes the 4x4 blocks in both 128-bit lanes of t in place.
func quarter(t [4]reg.VecVirtual) (out [4]reg.VecVirtual) {
	lo01, hi01, lo23, hi23 := YMM(), YMM(), YMM(), YMM()
	VUNPCKLPS(t[1], t[0], lo01) // 00 10 01 11
	VUNPCKHPS(t[1], t[0], hi01) // 02 12 03 13
	VUNPCKLPS(t[3], t[2], lo23)
	VUNPCKHPS(t[3], t[2], hi23)
	for i := range out {
		out[i] = YMM()
	}
	VUNPCKLPD(lo23, lo01, out[0])
	VUNPCKHPD(lo23, lo01, out[1])
	VUNPCKLPD(hi23, hi01, out[2])
	VUNPCKHPD(hi23, hi01, out[3])
	return out
}

func transposeF32x8() {
	text("transposeF32x8", "(blocks int, src *float32, srcStride int, dst *float32, dstStride int)",
		"writes 8 rows of 8*blocks columns of src, srcStride bytes apart, as columns: 8 elements per column, dstStride bytes apart.")
	blocks, src, srcStride, dst, dstStride := transposeParams()
	row := rowsFrom(src, srcStride, 8)
	Label("loop")
	for half := range 2 {
		var t [4]reg.VecVirtual
		for i := range t {
			// Rows i and i+4 side by side, so that the transposed lanes make whole columns.
			t[i] = YMM()
			VMOVUPS(row.at(i, 16*half), t[i].AsX())
			VINSERTF128(Imm(1), row.at(i+4, 16*half), t[i], t[i])
		}
		for _, col := range quarter(t) {
			VMOVUPS(col, Mem{Base: dst})
			ADDQ(dstStride, dst)
		}
	}
	row.advance(32)
	DECQ(blocks)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func transposeBF16x8() {
	text("transposeBF16x8", "(blocks int, src *uint16, srcStride int, dst *float32, dstStride int)",
		"is transposeF32x8 for rows of bfloat16, which it widens.")
	blocks, src, srcStride, dst, dstStride := transposeParams()
	row := rowsFrom(src, srcStride, 8)
	nought := YMM()
	VPXOR(nought, nought, nought)
	Label("loop")
	var lo, hi [4]reg.VecVirtual
	for i := range lo {
		both := YMM()
		VMOVDQU(row.at(i, 0), both.AsX())
		VINSERTI128(Imm(1), row.at(i+4, 0), both, both)
		// A bfloat16 is the upper half of a float32: interleave with zeros.
		lo[i], hi[i] = YMM(), YMM()
		VPUNPCKLWD(both, nought, lo[i])
		VPUNPCKHWD(both, nought, hi[i])
	}
	for _, t := range [][4]reg.VecVirtual{lo, hi} {
		for _, col := range quarter(t) {
			VMOVUPS(col, Mem{Base: dst})
			ADDQ(dstStride, dst)
		}
	}
	row.advance(16)
	DECQ(blocks)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func transposeF32x4() {
	text("transposeF32x4", "(blocks int, src *float32, srcStride int, dst *float32, dstStride int)",
		"writes 4 rows of 8*blocks columns of src, srcStride bytes apart, as columns: 4 elements per column, dstStride bytes apart.")
	blocks, src, srcStride, dst, dstStride := transposeParams()
	row := rowsFrom(src, srcStride, 4)
	Label("loop")
	var t [4]reg.VecVirtual
	for i := range t {
		t[i] = YMM()
		VMOVUPS(row.at(i, 0), t[i])
	}
	cols := quarter(t) // columns 0..3 in the lower lanes, 4..7 in the upper
	for _, col := range cols {
		VMOVUPS(col.AsX(), Mem{Base: dst})
		ADDQ(dstStride, dst)
	}
	for _, col := range cols {
		VEXTRACTF128(Imm(1), col, Mem{Base: dst})
		ADDQ(dstStride, dst)
	}
	row.advance(32)
	DECQ(blocks)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func transposeF64x4() {
	text("transposeF64x4", "(blocks int, src *float64, srcStride int, dst *float64, dstStride int)",
		"writes 4 rows of 8*blocks columns of src, srcStride bytes apart, as columns: 4 elements per column, dstStride bytes apart.")
	blocks, src, srcStride, dst, dstStride := transposeParams()
	row := rowsFrom(src, srcStride, 4)
	Label("loop")
	for pair := range 4 {
		even, odd := YMM(), YMM()
		VMOVUPD(row.at(0, 16*pair), even.AsX())
		VMOVUPD(row.at(1, 16*pair), odd.AsX())
		VINSERTF128(Imm(1), row.at(2, 16*pair), even, even)
		VINSERTF128(Imm(1), row.at(3, 16*pair), odd, odd)
		first, second := YMM(), YMM()
		VUNPCKLPD(odd, even, first)
		VUNPCKHPD(odd, even, second)
		VMOVUPD(first, Mem{Base: dst})
		ADDQ(dstStride, dst)
		VMOVUPD(second, Mem{Base: dst})
		ADDQ(dstStride, dst)
	}
	row.advance(64)
	DECQ(blocks)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// copyLoop emits the loop over rows and 32-byte units of the destination that
// copyRows and widenRows share.
func copyLoop(unitBytes int, unit func(src, dst Mem)) {
	rows, src, srcStride, dst, dstStride, units := GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	Load(Param("rows"), rows)
	Load(Param("src"), src)
	Load(Param("srcStride"), srcStride)
	Load(Param("dst"), dst)
	Load(Param("dstStride"), dstStride)
	Load(Param("units"), units)
	s, d, n := GP64(), GP64(), GP64()
	Label("row")
	MOVQ(src, s)
	MOVQ(dst, d)
	MOVQ(units, n)
	SHRQ(Imm(1), n)
	JZ(LabelRef("last"))
	Label("pair")
	unit(Mem{Base: s}, Mem{Base: d})
	unit(Mem{Base: s, Disp: unitBytes}, Mem{Base: d, Disp: 32})
	ADDQ(I32(2*unitBytes), s)
	ADDQ(I32(64), d)
	DECQ(n)
	JNZ(LabelRef("pair"))
	Label("last")
	TESTQ(I32(1), units)
	JZ(LabelRef("next"))
	unit(Mem{Base: s}, Mem{Base: d})
	Label("next")
	ADDQ(srcStride, src)
	ADDQ(dstStride, dst)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

func copyRows() {
	text("copyRows", "(rows int, src *byte, srcStride int, dst *byte, dstStride int, units int)",
		"copies rows of units*32 bytes; the strides are in bytes.")
	copyLoop(32, func(src, dst Mem) {
		r := YMM()
		VMOVDQU(src, r)
		VMOVDQU(r, dst)
	})
}

func widenRows() {
	text("widenRows", "(rows int, src *uint16, srcStride int, dst *float32, dstStride int, units int)",
		"widens rows of units*8 bfloat16 to float32; the strides are in bytes.")
	copyLoop(16, func(src, dst Mem) {
		r := YMM()
		VPMOVZXWD(src, r)
		VPSLLD(Imm(16), r, r)
		VMOVDQU(r, dst)
	})
}

func addScaledF64() {
	text("addScaledF64", "(blocks int, alpha float64, src *float32, dst *float64)",
		"adds alpha*src to dst over 8*blocks elements, in float64.")
	blocks := Load(Param("blocks"), GP64())
	src := Load(Param("src"), GP64())
	dst := Load(Param("dst"), GP64())
	alpha := YMM()
	broadcastParam(f64, "alpha", alpha)
	Label("loop")
	for half := range 2 {
		wide, sum := YMM(), YMM()
		at := Mem{Base: dst, Disp: 32 * half}
		VCVTPS2PD(Mem{Base: src, Disp: 16 * half}, wide)
		VMOVUPD(at, sum)
		VFMADD231PD(alpha, wide, sum)
		VMOVUPD(sum, at)
	}
	ADDQ(I32(32), src)
	ADDQ(I32(64), dst)
	DECQ(blocks)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
