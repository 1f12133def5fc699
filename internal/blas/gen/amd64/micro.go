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

// rowsOfA is how a kernel reads A.
type rowsOfA struct {
	load    func()                  // loads what is needed
	begin   func(k reg.Register)    // begins the loop
	turn    func()                  // begins a turn of it
	element func(row, step int) Mem // of so many steps ahead
	advance func(steps int)         // moves past so many steps
}

// signature returns that of the kernels of tiles: of the type microKernel, or tileKernel if they compute one.
func signature(t elem, x ext) string {
	if x.rows {
		return fmt.Sprintf("(k int, a *%[1]s, aStride int, b *%[1]s, bStride, bNext int, c *%[1]s, cStride, tiles int, alpha, beta %[1]s)", t.goType)
	}
	return fmt.Sprintf("(k int, a, b *%[1]s, bStride int, c *%[1]s, cStride int, alpha, beta %[1]s)", t.goType)
}

// micro emits the kernel of mr x nv-vector tiles of C with a packed panel of A.
func micro(t elem, x ext, mr, nv int) {
	what := "a tile"
	if x.rows {
		what = "tiles side by side, whose panels of B lie bNext bytes apart,"
	}
	text(fmt.Sprintf("micro%s%sx%dx%d", t.tag, x.tag, mr, nv),
		signature(t, x),
		"computes C = alpha*A*B + beta*C for %s of %d rows and %d columns. A is packed, %d elements a step; B has a row of a tile's columns a step, bStride bytes apart. C is not read if beta is zero.",
		what, mr, nv*x.bytes/t.size, mr)
	var a, nextPanel reg.Register
	tile(t, x, mr, nv, rowsOfA{
		load: func() { a = Load(Param("a"), GP64()) },
		// The next panel of A comes from the third-level cache: move it up while this one is used.
		begin: func(k reg.Register) {
			nextPanel = GP64()
			IMUL3Q(U32(uint32(mr*t.size)), k, nextPanel)
		},
		element: func(row, step int) Mem { return Mem{Base: a, Disp: (step*mr + row) * t.size} },
		turn: func() {
			for off := 0; off < unroll*mr*t.size; off += 64 {
				PREFETCHT1(Mem{Base: a, Index: nextPanel, Scale: 1, Disp: off})
			}
		},
		advance: func(steps int) { ADDQ(I32(int32(steps*mr*t.size)), a) },
	})
}

// direct emits the kernel of mr x nv-vector tiles of C with rows of A where they lie.
func direct(t elem, x ext, mr, nv int) {
	text(fmt.Sprintf("direct%s%sx%dx%d", t.tag, x.tag, mr, nv),
		signature(t, x),
		"is micro%s%sx%dx%d with rows of A that lie aStride bytes apart.", t.tag, x.tag, mr, nv)
	// Three rows go with a register: an index is scaled by one or two.
	const together = 3
	var bases []reg.Register
	var stride reg.Register
	tile(t, x, mr, nv, rowsOfA{
		load: func() {
			bases, stride = []reg.Register{Load(Param("a"), GP64())}, Load(Param("aStride"), GP64())
			for i := together; i < mr; i += together {
				next := GP64()
				LEAQ(Mem{Base: bases[len(bases)-1], Index: stride, Scale: 2}, next)
				ADDQ(stride, next)
				bases = append(bases, next)
			}
		},
		element: func(row, step int) Mem {
			m := Mem{Base: bases[row/together], Disp: step * t.size}
			if row%together > 0 {
				m.Index, m.Scale = stride, uint8(row%together)
			}
			return m
		},
		begin: func(reg.Register) {},
		turn:  func() {},
		advance: func(steps int) {
			for _, base := range bases {
				ADDQ(Imm(uint64(steps*t.size)), base)
			}
		},
	})
}

// tile emits the body of a kernel. A tile stays in registers; each step of the
// inner dimension loads nv vectors of B, broadcasts mr elements of A and
// multiplies them into the tile.
func tile(t elem, x ext, mr, nv int, a rowsOfA) {
	if x.rows {
		Label("tile")
	}
	k := Load(Param("k"), GP64())
	a.load()
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

	var ahead reg.Register
	if mr != x.unfetched {
		ahead = GP64()
		IMUL3Q(Imm(prefetchSteps), bStride, ahead)
	}
	step := func(u int) {
		for off := 0; off < nv*x.bytes && ahead != nil; off += 64 {
			PREFETCHT0(Mem{Base: b, Index: ahead, Scale: 1, Disp: off})
		}
		for v := range bv {
			loadu(t, Mem{Base: b, Disp: v * x.bytes}, bv[v])
		}
		for i := range mr {
			ai := av[i%len(av)]
			broadcast(t, a.element(i, u), ai)
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
	a.begin(k)
	Label("loop")
	a.turn()
	for u := range unroll {
		step(u)
	}
	a.advance(unroll)
	DECQ(turns)
	JNZ(LabelRef("loop"))
	Label("tail")
	ANDQ(Imm(unroll-1), k)
	JZ(LabelRef("store"))
	Label("single")
	step(0)
	a.advance(1)
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
	if x.rows {
		JMP(LabelRef("next"))
	} else {
		VZEROUPPER()
		RET()
	}
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
	if x.rows {
		Label("next")
		panel := Load(Param("b"), GP64())
		ADDQ(paramAddr("bNext"), panel)
		MOVQ(panel, paramAddr("b"))
		ADDQ(I32(int32(nv*x.bytes)), paramAddr("c"))
		DECQ(paramAddr("tiles"))
		JNZ(LabelRef("tile"))
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
