package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The kernels of package vec. Each takes blocks of 16 elements (64 for dot); see
// portable.go there for what they compute.

const vecBlock = 16

func vecKernels() {
	for _, x := range []ext{avx2, avx512} {
		vecExp(x, false)
		vecExp(x, true)
		vecSiLUMul(x)
		vecDot(x)
		vecDotF64(x)
		vecAxpy(x)
		vecScale(x)
		vecScaleMul(x)
		vecMax(x)
		vecWiden(x)
	}
	vecNarrow(avx2) // half the width is fast enough to wait for memory
}

// parts is the number of vectors in a block of float32.
func (x ext) parts() int { return vecBlock * 4 / x.bytes }

func (x ext) is512() bool { return x.tag == avx512.tag }

// The vectors of vec's constants, in its order.
const (
	cLow = iota
	cHigh
	cLog2e
	cMagic
	cNegLn2Upper
	cNegLn2Lower
	cQ4
	cQ3
	cQ2
	cQ1
	cQ0
	cOne
	cBias
	cSign
)

// expConsts holds the constants: in registers if there are enough, in memory if
// not, except those that an instruction needs in a register.
type expConsts struct {
	ops [cSign + 1]Op
}

func loadConsts(x ext) expConsts {
	var c expConsts
	base := Load(Param("constants"), GP64())
	for i := range c.ops {
		m := Mem{Base: base, Disp: i * vecBlock * 4}
		if x.is512() || i == cLow || i == cHigh {
			r := x.vec()
			VMOVUPS(m, r)
			c.ops[i] = r
		} else {
			c.ops[i] = m
		}
	}
	return c
}

// exp replaces v by its exponential.
func (c expConsts) exp(x ext, v reg.VecVirtual) {
	// The second source, v, is the result if it is NaN.
	VMAXPS(v, c.ops[cLow], v)
	VMINPS(v, c.ops[cHigh], v)
	t, n, p, square := x.vec(), x.vec(), x.vec(), x.vec()
	VMOVUPS(c.ops[cMagic], t)
	VFMADD231PS(c.ops[cLog2e], v, t)
	VSUBPS(c.ops[cMagic], t, n)
	VFMADD231PS(c.ops[cNegLn2Upper], n, v)
	VFMADD231PS(c.ops[cNegLn2Lower], n, v)
	VMOVUPS(c.ops[cQ4], p)
	for _, q := range []int{cQ3, cQ2, cQ1, cQ0} {
		VFMADD213PS(c.ops[q], v, p)
	}
	VMULPS(v, v, square)
	VFMADD213PS(v, square, p)
	VADDPS(c.ops[cOne], p, p)
	if x.is512() {
		VSCALEFPS(n, p, v)
		return
	}
	half := x.vec()
	VPSUBD(c.ops[cMagic], t, t)
	VPSRAD(Imm(1), t, half)
	VPSUBD(half, t, t)
	for _, r := range []reg.VecVirtual{half, t} {
		VPADDD(c.ops[cBias], r, r)
		VPSLLD(Imm(23), r, r)
		VMULPS(r, p, p)
	}
	VMOVUPS(p, v)
}

// vecText starts a kernel and loads its number of blocks.
func vecText(name string, x ext, params, doc string) reg.GPVirtual {
	text(name+x.tag, "(blocks int, "+params+")", doc)
	blocks := GP64()
	Load(Param("blocks"), blocks)
	return blocks
}

func loop(blocks reg.GPVirtual, body func()) {
	Label("loop")
	body()
	DECQ(blocks)
	JNZ(LabelRef("loop"))
}

func pointer(name string) reg.GPVirtual {
	r := GP64()
	Load(Param(name), r)
	return r
}

func next(bytes int, pointers ...reg.GPVirtual) {
	for _, p := range pointers {
		ADDQ(I32(bytes), p)
	}
}

func vecExp(x ext, sum bool) {
	name, params, doc := "exp", "dst, src *float32, constants *float32", "sets dst = exp(src) over 16*blocks elements."
	if sum {
		name, params, doc = "expSum", "dst, src *float32, shift float32, sum *float32, constants *float32", "sets dst = exp(src - shift) over 16*blocks elements and adds dst to the 16 lanes of sum."
	}
	blocks := vecText(name, x, params, doc)
	dst, src := pointer("dst"), pointer("src")
	var lanes []reg.VecVirtual
	var sums reg.GPVirtual
	shift := x.vec()
	if sum {
		sums = pointer("sum")
		broadcastParam(f32, "shift", shift)
		lanes = vectors(x, x.parts())
		for i, r := range lanes {
			VMOVUPS(Mem{Base: sums, Disp: i * x.bytes}, r)
		}
	}
	c := loadConsts(x)
	loop(blocks, func() {
		for i := range x.parts() {
			v := x.vec()
			VMOVUPS(Mem{Base: src, Disp: i * x.bytes}, v)
			if sum {
				VSUBPS(shift, v, v)
			}
			c.exp(x, v)
			VMOVUPS(v, Mem{Base: dst, Disp: i * x.bytes})
			if sum {
				VADDPS(v, lanes[i], lanes[i])
			}
		}
		next(64, dst, src)
	})
	for i, r := range lanes {
		VMOVUPS(r, Mem{Base: sums, Disp: i * x.bytes})
	}
	VZEROUPPER()
	RET()
}

func vecSiLUMul(x ext) {
	blocks := vecText("siluMul", x, "dst, gate, up *float32, constants *float32", "sets dst = gate * sigmoid(gate) * up over 16*blocks elements.")
	dst, gate, up := pointer("dst"), pointer("gate"), pointer("up")
	c := loadConsts(x)
	sign := x.vec()
	VMOVUPS(c.ops[cSign], sign)
	loop(blocks, func() {
		for i := range x.parts() {
			g, e, factor := x.vec(), x.vec(), x.vec()
			VMOVUPS(Mem{Base: gate, Disp: i * x.bytes}, g)
			if x.is512() {
				VPORD(sign, g, e)
			} else {
				VORPS(sign, g, e)
			}
			c.exp(x, e)
			// exp(g) for negative g, one otherwise
			if x.is512() {
				k := K()
				VPMOVD2M(g, k)
				VBLENDMPS(e, c.ops[cOne], k, factor)
			} else {
				VMOVUPS(c.ops[cOne], factor)
				VBLENDVPS(g, e, factor, factor)
			}
			VMULPS(factor, g, g)
			VADDPS(c.ops[cOne], e, e)
			VDIVPS(e, g, g)
			VMULPS(Mem{Base: up, Disp: i * x.bytes}, g, g)
			VMOVUPS(g, Mem{Base: dst, Disp: i * x.bytes})
		}
		next(64, dst, gate, up)
	})
	VZEROUPPER()
	RET()
}

func vecDot(x ext) {
	blocks := vecText("dot", x, "x, y *float32, sum *float32", "adds x*y over 64*blocks elements to the 64 lanes of sum.")
	px, py, sums := pointer("x"), pointer("y"), pointer("sum")
	lanes := vectors(x, 4*x.parts())
	for i, r := range lanes {
		VMOVUPS(Mem{Base: sums, Disp: i * x.bytes}, r)
	}
	loop(blocks, func() {
		for i, r := range lanes {
			v := x.vec()
			VMOVUPS(Mem{Base: px, Disp: i * x.bytes}, v)
			VFMADD231PS(Mem{Base: py, Disp: i * x.bytes}, v, r)
		}
		next(256, px, py)
	})
	for i, r := range lanes {
		VMOVUPS(r, Mem{Base: sums, Disp: i * x.bytes})
	}
	VZEROUPPER()
	RET()
}

func vecDotF64(x ext) {
	blocks := vecText("dotF64", x, "x, y *float32, sum *float64", "adds x*y, in float64, over 16*blocks elements to the 16 lanes of sum.")
	px, py, sums := pointer("x"), pointer("y"), pointer("sum")
	lanes := vectors(x, 2*x.parts())
	for i, r := range lanes {
		VMOVUPD(Mem{Base: sums, Disp: i * x.bytes}, r)
	}
	loop(blocks, func() {
		for i, r := range lanes {
			a, b := x.vec(), x.vec()
			VCVTPS2PD(Mem{Base: px, Disp: i * x.bytes / 2}, a)
			VCVTPS2PD(Mem{Base: py, Disp: i * x.bytes / 2}, b)
			VFMADD231PD(a, b, r)
		}
		next(64, px, py)
	})
	for i, r := range lanes {
		VMOVUPD(r, Mem{Base: sums, Disp: i * x.bytes})
	}
	VZEROUPPER()
	RET()
}

func vecAxpy(x ext) {
	blocks := vecText("axpy", x, "a float32, x, dst *float32", "adds a*x to dst over 16*blocks elements.")
	px, dst, a := pointer("x"), pointer("dst"), x.vec()
	broadcastParam(f32, "a", a)
	loop(blocks, func() {
		for i := range x.parts() {
			v, at := x.vec(), Mem{Base: dst, Disp: i * x.bytes}
			VMOVUPS(at, v)
			VFMADD231PS(Mem{Base: px, Disp: i * x.bytes}, a, v)
			VMOVUPS(v, at)
		}
		next(64, px, dst)
	})
	VZEROUPPER()
	RET()
}

func vecScale(x ext) {
	blocks := vecText("scale", x, "a float32, dst *float32", "multiplies dst by a over 16*blocks elements.")
	dst, a := pointer("dst"), x.vec()
	broadcastParam(f32, "a", a)
	loop(blocks, func() {
		for i := range x.parts() {
			v, at := x.vec(), Mem{Base: dst, Disp: i * x.bytes}
			VMULPS(at, a, v)
			VMOVUPS(v, at)
		}
		next(64, dst)
	})
	VZEROUPPER()
	RET()
}

func vecScaleMul(x ext) {
	blocks := vecText("scaleMul", x, "dst, x *float32, a float32, w *float32", "sets dst = (a*x)*w over 16*blocks elements.")
	dst, px, w, a := pointer("dst"), pointer("x"), pointer("w"), x.vec()
	broadcastParam(f32, "a", a)
	loop(blocks, func() {
		for i := range x.parts() {
			v := x.vec()
			VMULPS(Mem{Base: px, Disp: i * x.bytes}, a, v)
			VMULPS(Mem{Base: w, Disp: i * x.bytes}, v, v)
			VMOVUPS(v, Mem{Base: dst, Disp: i * x.bytes})
		}
		next(64, dst, px, w)
	})
	VZEROUPPER()
	RET()
}

func vecMax(x ext) {
	blocks := vecText("max", x, "x *float32, lanes *float32", "raises the 16 lanes to the elements of x, over 16*blocks of them, ignoring NaN.")
	px, out := pointer("x"), pointer("lanes")
	lanes := vectors(x, x.parts())
	for i, r := range lanes {
		VMOVUPS(Mem{Base: out, Disp: i * x.bytes}, r)
	}
	loop(blocks, func() {
		for i, r := range lanes {
			v := x.vec()
			VMOVUPS(Mem{Base: px, Disp: i * x.bytes}, v)
			VMAXPS(r, v, r) // the second source, r, if v is NaN
		}
		next(64, px)
	})
	for i, r := range lanes {
		VMOVUPS(r, Mem{Base: out, Disp: i * x.bytes})
	}
	VZEROUPPER()
	RET()
}

func vecWiden(x ext) {
	blocks := vecText("widen", x, "dst *float32, src *uint16", fmt.Sprintf("widens %d*blocks bfloat16 to float32.", vecBlock))
	dst, src := pointer("dst"), pointer("src")
	loop(blocks, func() {
		for i := range x.parts() {
			v := x.vec()
			VPMOVZXWD(Mem{Base: src, Disp: i * x.bytes / 2}, v)
			VPSLLD(Imm(16), v, v)
			VMOVUPS(v, Mem{Base: dst, Disp: i * x.bytes})
		}
		next(64, dst)
		next(32, src)
	})
	VZEROUPPER()
	RET()
}

// vecNarrow rounds to nearest even by adding just under half of the last kept place, or exactly half where that place is odd.
func vecNarrow(x ext) {
	blocks := vecText("narrow", x, "dst *uint16, src *float32, special *uint32",
		fmt.Sprintf("rounds %d*blocks float32 to bfloat16, and sets special where one is NaN or infinite.", vecBlock))
	dst, src, special := pointer("dst"), pointer("src"), pointer("special")
	constant := func(bits uint32) reg.VecVirtual {
		low, v := GP32(), x.vec()
		MOVL(U32(bits), low)
		VMOVD(low, v.AsX())
		VPBROADCASTD(v.AsX(), v)
		return v
	}
	half, one, infinity, found := constant(0x7fff), constant(1), constant(0x7f800000), x.vec()
	VPXOR(found, found, found)
	loop(blocks, func() {
		var parts []reg.VecVirtual
		for i := range x.parts() {
			v, odd, exponent := x.vec(), x.vec(), x.vec()
			VMOVDQU(Mem{Base: src, Disp: i * x.bytes}, v)
			VPAND(infinity, v, exponent)
			VPCMPEQD(infinity, exponent, exponent)
			VPOR(exponent, found, found)
			VPSRLD(Imm(16), v, odd)
			VPAND(one, odd, odd)
			VPADDD(half, v, v)
			VPADDD(odd, v, v)
			VPSRLD(Imm(16), v, v)
			parts = append(parts, v)
		}
		VPACKUSDW(parts[1], parts[0], parts[0]) // by halves of the registers
		VPERMQ(Imm(0b11_01_10_00), parts[0], parts[0])
		VMOVDQU(parts[0], Mem{Base: dst})
		next(32, dst)
		next(64, src)
	})
	mask := GP32()
	VPMOVMSKB(found, mask)
	MOVL(mask, Mem{Base: special})
	VZEROUPPER()
	RET()
}
