package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// unroll is the number of steps of the inner dimension per turn of the loop.
const unroll = 4

// prefetchSteps is how far ahead of its use B is fetched to the first-level
// cache, in steps of the inner dimension.
const prefetchSteps = 8

// micro emits the kernel of an mr x nv-vector tile of C. The tile stays in
// registers; each step of the inner dimension loads nv vectors of B, broadcasts
// mr elements of A and multiplies them into the tile.
func micro(t elem, x ext, mr, nv int) {
	text(fmt.Sprintf("micro%s%sx%dx%d", t.tag, x.tag, mr, nv),
		fmt.Sprintf("(k int, a, b *%[1]s, bStride int, c *%[1]s, cStride int, alpha, beta %[1]s)", t.goType),
		"computes C = alpha*A*B + beta*C for a tile of %d rows and %d columns. A is packed, %d elements a step; B has a row of the tile's columns a step, bStride bytes apart. C is not read if beta is zero.",
		mr, nv*x.bytes/t.size, mr)
	k := Load(Param("k"), GP64())
	a := Load(Param("a"), GP64())
	b := Load(Param("b"), GP64())
	bStride := Load(Param("bStride"), GP64())
	c := Load(Param("c"), GP64())
	cStride := Load(Param("cStride"), GP64())

	// The tile of C is needed at the end; fetch it now.
	row := GP64()
	MOVQ(c, row)
	for i := range mr {
		for off := 0; off < nv*x.bytes; off += 64 {
			PREFETCHT0(Mem{Base: row, Disp: off})
		}
		if i < mr-1 {
			ADDQ(cStride, row)
		}
	}

	acc := make([][]reg.VecVirtual, mr)
	for i := range acc {
		acc[i] = make([]reg.VecVirtual, nv)
		for v := range acc[i] {
			acc[i][v] = x.vec()
			zero(x, acc[i][v])
		}
	}
	bv := vectors(x, nv)
	// As many broadcast registers as are left keep the multiplications apart.
	av := vectors(x, min(mr, x.regs-mr*nv-nv))

	ahead := GP64()
	IMUL3Q(Imm(prefetchSteps), bStride, ahead)
	step := func(u int) {
		for off := 0; off < nv*x.bytes; off += 64 {
			PREFETCHT0(Mem{Base: b, Index: ahead, Scale: 1, Disp: off})
		}
		for v := range bv {
			loadu(t, Mem{Base: b, Disp: v * x.bytes}, bv[v])
		}
		for i := range mr {
			ai := av[i%len(av)]
			broadcast(t, Mem{Base: a, Disp: (u*mr + i) * t.size}, ai)
			for v := range bv {
				fma(t, bv[v], ai, acc[i][v])
			}
		}
		ADDQ(bStride, b)
	}
	turns := GP64()
	MOVQ(k, turns)
	SHRQ(Imm(2), turns)
	JZ(LabelRef("tail"))
	// The next panel of A comes from the third-level cache: move it up while this
	// one is used.
	nextPanel := GP64()
	IMUL3Q(U32(uint32(mr*t.size)), k, nextPanel)
	Label("loop")
	for off := 0; off < unroll*mr*t.size; off += 64 {
		PREFETCHT1(Mem{Base: a, Index: nextPanel, Scale: 1, Disp: off})
	}
	for u := range unroll {
		step(u)
	}
	ADDQ(I32(unroll*mr*t.size), a)
	DECQ(turns)
	JNZ(LabelRef("loop"))
	Label("tail")
	ANDQ(Imm(unroll-1), k)
	JZ(LabelRef("store"))
	Label("single")
	step(0)
	ADDQ(I32(mr*t.size), a)
	DECQ(k)
	JNZ(LabelRef("single"))

	Label("store")
	alpha, beta := x.vec(), x.vec()
	broadcastParam(t, "alpha", alpha)
	// Beta is zero if nothing but its sign bit is set.
	bits := GP64()
	if t.size == 4 {
		MOVL(paramAddr("beta"), bits.As32())
		SHLL(Imm(1), bits.As32())
	} else {
		MOVQ(paramAddr("beta"), bits)
		SHLQ(Imm(1), bits)
	}
	JZ(LabelRef("overwrite"))
	broadcastParam(t, "beta", beta)
	for i := range mr {
		for v := range nv {
			at := Mem{Base: c, Disp: v * x.bytes}
			old := x.vec()
			mul(t, at, beta, old)
			fma(t, alpha, acc[i][v], old)
			storeu(t, old, at)
		}
		if i < mr-1 {
			ADDQ(cStride, c)
		}
	}
	VZEROUPPER()
	RET()
	Label("overwrite")
	for i := range mr {
		for v := range nv {
			mul(t, alpha, acc[i][v], acc[i][v])
			storeu(t, acc[i][v], Mem{Base: c, Disp: v * x.bytes})
		}
		if i < mr-1 {
			ADDQ(cStride, c)
		}
	}
	VZEROUPPER()
	RET()
}

func vectors(x ext, n int) []reg.VecVirtual {
	r := make([]reg.VecVirtual, n)
	for i := range r {
		r[i] = x.vec()
	}
	return r
}

func zero(x ext, r reg.VecVirtual) {
	if x.is512() {
		VPXORQ(r, r, r)
	} else {
		VXORPS(r, r, r)
	}
}
