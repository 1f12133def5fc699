package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// dotCols is the number of rows of B that a dot kernel takes at once.
const dotCols = 4

// dot emits the kernel of mr x 4 inner products of unpacked rows. An inner
// product is summed in 64 bytes' worth of lanes whatever the extension, and the
// lanes are added as a tree of halves, so that all extensions agree to the bit.
func dot(t elem, x ext, mr int, widen bool) {
	tag, bType, bSize := t.tag, t.goType, t.size
	if widen {
		tag, bType, bSize = "BF16", "uint16", 2
	}
	text(fmt.Sprintf("dot%s%sx%d", tag, x.tag, mr),
		fmt.Sprintf("(blocks int, a *%s, aStride int, b *%s, bStride int, out *%s)", t.goType, bType, t.goType),
		"computes the inner products of %d rows of A with %d rows of B, over %d*blocks elements: out[%d*i+j] = A[i]·B[j]. The strides are in bytes.",
		mr, dotCols, 64/t.size, dotCols)
	blocks := GP64()
	a, aStride, b, bStride := GP64(), GP64(), GP64(), GP64()
	Load(Param("blocks"), blocks)
	Load(Param("a"), a)
	Load(Param("aStride"), aStride)
	Load(Param("b"), b)
	Load(Param("bStride"), bStride)
	parts := 64 / x.bytes // registers per block of lanes

	aRow := rowsFrom(a, aStride, mr)
	bRow := rowsFrom(b, bStride, dotCols)

	acc := make([][dotCols][]reg.VecVirtual, mr)
	for i := range acc {
		for j := range acc[i] {
			acc[i][j] = vectors(x, parts)
			for _, r := range acc[i][j] {
				zero(x, r)
			}
		}
	}
	Label("loop")
	for p := range parts {
		av := vectors(x, mr)
		for i := range av {
			loadu(t, aRow.at(i, p*x.bytes), av[i])
		}
		for j := range dotCols {
			bv := x.vec()
			if widen {
				VPMOVZXWD(bRow.at(j, p*x.bytes/2), bv)
				VPSLLD(Imm(16), bv, bv)
			} else {
				loadu(t, bRow.at(j, p*x.bytes), bv)
			}
			for i := range av {
				fma(t, bv, av[i], acc[i][j][p])
			}
		}
	}
	aRow.advance(64)
	bRow.advance(64 / t.size * bSize)
	DECQ(blocks)
	JNZ(LabelRef("loop"))

	out := Load(Param("out"), GP64())
	for i := range acc {
		fold(t, x, acc[i], Mem{Base: out, Disp: i * dotCols * t.size})
	}
	VZEROUPPER()
	RET()
}

// fold adds the lanes of four inner products as a tree of halves and stores the sums.
func fold(t elem, x ext, acc [dotCols][]reg.VecVirtual, out Mem) {
	var half [dotCols]reg.VecVirtual // XMM registers: the lanes folded to 16 bytes
	for j, parts := range acc {
		sum := YMM()
		if x.is512() {
			upper := YMM()
			VEXTRACTF64X4(Imm(1), parts[0], upper)
			add(t, upper, parts[0].AsY(), sum)
		} else {
			add(t, parts[1], parts[0], sum)
		}
		half[j] = XMM()
		upper := XMM()
		if x.is512() {
			VEXTRACTF32X4(Imm(1), sum, upper)
		} else {
			VEXTRACTF128(Imm(1), sum, upper)
		}
		add(t, upper, sum.AsX(), half[j])
	}
	if t.size == 8 {
		for j := 0; j < dotCols; j += 2 {
			lo, hi := XMM(), XMM()
			VUNPCKLPD(half[j+1], half[j], lo)
			VUNPCKHPD(half[j+1], half[j], hi)
			VADDPD(hi, lo, lo)
			VMOVUPD(lo, out.Offset(j*8))
		}
		return
	}
	var pair [2]reg.VecVirtual // lanes l and l+2 added, two products side by side
	for h := range pair {
		lo, hi := XMM(), XMM()
		VUNPCKLPD(half[2*h+1], half[2*h], lo)
		VUNPCKHPD(half[2*h+1], half[2*h], hi)
		VADDPS(hi, lo, lo)
		pair[h] = lo
	}
	even, odd := XMM(), XMM()
	VSHUFPS(Imm(0x88), pair[1], pair[0], even)
	VSHUFPS(Imm(0xdd), pair[1], pair[0], odd)
	VADDPS(odd, even, even)
	VMOVUPS(even, out)
}

// both emits the kernel that uses four rows of A twice: for their inner products with a vector, which are summed as those of
// dot, and for their sum with weights, which is added to another, row after row.
func both(t elem, x ext) {
	text(fmt.Sprintf("both%s%s", t.tag, x.tag),
		fmt.Sprintf("(blocks int, a *%[1]s, aStride int, x, w, sum, out *%[1]s)", t.goType),
		"computes, over %d*blocks elements, the inner products of %d rows of A with x, out[i] = A[i]·x, and adds the rows times w to sum: sum += w[0]*A[0] + w[1]*A[1] + ... aStride is in bytes.",
		64/t.size, dotCols)
	blocks, a, aStride := GP64(), GP64(), GP64()
	Load(Param("blocks"), blocks)
	Load(Param("a"), a)
	Load(Param("aStride"), aStride)
	xs, w, sum := pointer("x"), pointer("w"), pointer("sum")
	row := rowsFrom(a, aStride, dotCols)
	weights := vectors(x, dotCols)
	var acc [dotCols][]reg.VecVirtual
	for i, r := range weights {
		broadcast(t, Mem{Base: w, Disp: i * t.size}, r)
		acc[i] = vectors(x, 64/x.bytes)
		for _, r := range acc[i] {
			zero(x, r)
		}
	}
	Label("loop")
	for p := range 64 / x.bytes {
		at := p * x.bytes
		xv, total := x.vec(), x.vec()
		loadu(t, Mem{Base: xs, Disp: at}, xv)
		loadu(t, Mem{Base: sum, Disp: at}, total)
		for i, weight := range weights {
			av := x.vec()
			loadu(t, row.at(i, at), av)
			fma(t, av, xv, acc[i][p])
			fma(t, av, weight, total)
		}
		storeu(t, total, Mem{Base: sum, Disp: at})
	}
	row.advance(64)
	ADDQ(Imm(64), xs)
	ADDQ(Imm(64), sum)
	DECQ(blocks)
	JNZ(LabelRef("loop"))
	fold(t, x, acc, Mem{Base: pointer("out")})
	VZEROUPPER()
	RET()
}
