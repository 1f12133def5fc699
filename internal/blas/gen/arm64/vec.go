package main

// The kernels of package vec. Each takes blocks of 16 elements, four vectors (64
// for dot); see portable.go there for what they compute.

func vecKernels(f *file) {
	vecExp(f, false)
	vecExp(f, true)
	vecSiLUMul(f)
	vecDot(f)
	vecDotF64(f)
	vecAxpy(f)
	vecScale(f)
	vecScaleMul(f)
	vecMax(f)
	vecWiden(f)
}

// The registers that hold vec's constants, in its order.
const (
	cLow = iota + 18
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

// vecText starts a kernel and loads its integer and pointer parameters into
// consecutive registers from R0.
func vecText(f *file, name, params, doc string, load ...string) *function {
	fn := f.text(name+"NEON", "blocks int, "+params, "", doc)
	for reg, p := range append([]string{"blocks"}, load...) {
		fn.load(p, reg)
	}
	return fn
}

// loop repeats body as often as R0 says.
func (fn *function) loop(body func()) { fn.loopThen(body, func() {}) }

// loopThen is loop with something to do before the return.
func (fn *function) loopThen(body, end func()) {
	fn.label("loop")
	body()
	fn.op("SUBS $1, R0, R0")
	fn.op("BNE loop")
	end()
	fn.op("RET")
}

func (fn *function) constants(reg int) {
	for c := cLow; c <= cSign; c++ {
		fn.op("VLD1 (R%d), [V%d.S4]", reg, c)
		fn.op("ADD $64, R%d", reg)
	}
}

func (fn *function) broadcast(param string, reg int) {
	fn.op("FMOVS %s, F%d", fn.arg(param), reg)
	fn.op("VDUP V%d.S[0], V%d.S4", reg, reg)
}

func (fn *function) move(from, to int) { fn.op("VMOV V%d.B16, V%d.B16", from, to) }

// fmla adds n*m to d.
func (fn *function) fmla(d, n, m int) { fn.op("VFMLA V%d.S4, V%d.S4, V%d.S4", m, n, d) }

// exp replaces V0 by its exponential. It uses V1 to V5.
func (fn *function) exp() {
	const v, t, n, p, s, h = 0, 1, 2, 3, 4, 5
	fn.word(fmax(v, v, cLow))
	fn.word(fmin(v, v, cHigh))
	fn.move(cMagic, t)
	fn.fmla(t, v, cLog2e)
	fn.word(fsub(false, n, t, cMagic))
	fn.fmla(v, n, cNegLn2Upper)
	fn.fmla(v, n, cNegLn2Lower)
	from, to := cQ4, p
	for _, q := range []int{cQ3, cQ2, cQ1, cQ0} {
		fn.move(q, to)
		fn.fmla(to, from, v)
		from = to
		to = p + s - to
	}
	fn.move(v, h)
	fn.word(fmul(false, v, v, v))
	fn.fmla(h, from, v)
	fn.word(fadd(false, p, h, cOne))
	fn.op("VSUB V%d.S4, V%d.S4, V%d.S4", cMagic, t, t)
	fn.word(sshr(h, t, 1))
	fn.op("VSUB V%d.S4, V%d.S4, V%d.S4", h, t, t)
	for _, r := range []int{h, t} {
		fn.op("VADD V%d.S4, V%d.S4, V%d.S4", cBias, r, r)
		fn.op("VSHL $23, V%d.S4, V%d.S4", r, r)
		fn.word(fmul(false, p, p, r))
	}
	fn.move(p, v)
}

func vecExp(f *file, sum bool) {
	const lanes, shift = 8, 12
	var fn *function
	if sum {
		fn = vecText(f, "expSum", "dst *float32, src *float32, shift float32, sum *float32, constants *float32",
			"sets dst = exp(src - shift) over 16*blocks elements and adds dst to the 16 lanes of sum.", "dst", "src", "constants", "sum")
		fn.broadcast("shift", shift)
		fn.op("VLD1 (R4), %s", list(lanes, 4, "S4"))
	} else {
		fn = vecText(f, "exp", "dst *float32, src *float32, constants *float32",
			"sets dst = exp(src) over 16*blocks elements.", "dst", "src", "constants")
	}
	fn.constants(3)
	fn.loopThen(func() {
		for i := range 4 {
			fn.op("VLD1.P 16(R2), [V0.S4]")
			if sum {
				fn.word(fsub(false, 0, 0, shift))
			}
			fn.exp()
			fn.op("VST1.P [V0.S4], 16(R1)")
			if sum {
				fn.word(fadd(false, lanes+i, lanes+i, 0))
			}
		}
	}, func() {
		if sum {
			fn.op("VST1 %s, (R4)", list(lanes, 4, "S4"))
		}
	})
}

func vecSiLUMul(f *file) {
	const e, g, mask, factor, up = 0, 6, 7, 8, 9
	fn := vecText(f, "siluMul", "dst *float32, gate *float32, up *float32, constants *float32",
		"sets dst = gate * sigmoid(gate) * up over 16*blocks elements.", "dst", "gate", "constants", "up")
	fn.constants(3)
	fn.loop(func() {
		for range 4 {
			fn.op("VLD1.P 16(R2), [V%d.S4]", g)
			fn.op("VLD1.P 16(R4), [V%d.S4]", up)
			fn.op("VORR V%d.B16, V%d.B16, V%d.B16", cSign, g, e)
			fn.exp()
			// exp(g) for negative g, one otherwise
			fn.word(sshr(mask, g, 31))
			fn.move(cOne, factor)
			fn.op("VBIT V%d.B16, V%d.B16, V%d.B16", mask, e, factor)
			fn.word(fmul(false, g, g, factor))
			fn.word(fadd(false, e, e, cOne))
			fn.word(fdiv(false, g, g, e))
			fn.word(fmul(false, g, g, up))
			fn.op("VST1.P [V%d.S4], 16(R1)", g)
		}
	})
}

func vecDot(f *file) {
	const x, y = 16, 20
	fn := vecText(f, "dot", "x *float32, y *float32, sum *float32",
		"adds x*y over 64*blocks elements to the 64 lanes of sum.", "x", "y", "sum")
	lanes := func(op string) {
		fn.op("MOVD R3, R4")
		for i := 0; i < 16; i += 4 {
			fn.op(op, list(i, 4, "S4"))
		}
	}
	lanes("VLD1.P 64(R4), %s")
	fn.loopThen(func() {
		for i := 0; i < 16; i += 4 {
			fn.op("VLD1.P 64(R1), %s", list(x, 4, "S4"))
			fn.op("VLD1.P 64(R2), %s", list(y, 4, "S4"))
			for j := range 4 {
				fn.fmla(i+j, x+j, y+j)
			}
		}
	}, func() { lanes("VST1.P %s, 64(R4)") })
}

func vecDotF64(f *file) {
	const x, y, wideX, wideY = 16, 20, 24, 25
	fn := vecText(f, "dotF64", "x *float32, y *float32, sum *float64",
		"adds x*y, in float64, over 16*blocks elements to the 16 lanes of sum.", "x", "y", "sum")
	lanes := func(op string) {
		fn.op("MOVD R3, R4")
		for i := 0; i < 8; i += 4 {
			fn.op(op, list(i, 4, "D2"))
		}
	}
	lanes("VLD1.P 64(R4), %s")
	fn.loopThen(func() {
		fn.op("VLD1.P 64(R1), %s", list(x, 4, "S4"))
		fn.op("VLD1.P 64(R2), %s", list(y, 4, "S4"))
		for i := range 4 {
			fn.word(fcvtl(wideX, x+i))
			fn.word(fcvtl(wideY, y+i))
			fn.op("VFMLA V%d.D2, V%d.D2, V%d.D2", wideX, wideY, 2*i)
			fn.word(fcvtl2(wideX, x+i))
			fn.word(fcvtl2(wideY, y+i))
			fn.op("VFMLA V%d.D2, V%d.D2, V%d.D2", wideX, wideY, 2*i+1)
		}
	}, func() { lanes("VST1.P %s, 64(R4)") })
}

func vecAxpy(f *file) {
	fn := vecText(f, "axpy", "a float32, x *float32, dst *float32",
		"adds a*x to dst over 16*blocks elements.", "x", "dst")
	fn.broadcast("a", 16)
	fn.loop(func() {
		fn.op("VLD1.P 64(R1), %s", list(0, 4, "S4"))
		fn.op("VLD1 (R2), %s", list(4, 4, "S4"))
		for i := range 4 {
			fn.fmla(4+i, i, 16)
		}
		fn.op("VST1.P %s, 64(R2)", list(4, 4, "S4"))
	})
}

func vecScale(f *file) {
	fn := vecText(f, "scale", "a float32, dst *float32", "multiplies dst by a over 16*blocks elements.", "dst")
	fn.broadcast("a", 16)
	fn.loop(func() {
		fn.op("VLD1 (R1), %s", list(0, 4, "S4"))
		for i := range 4 {
			fn.word(fmul(false, i, i, 16))
		}
		fn.op("VST1.P %s, 64(R1)", list(0, 4, "S4"))
	})
}

func vecScaleMul(f *file) {
	fn := vecText(f, "scaleMul", "dst *float32, x *float32, a float32, w *float32",
		"sets dst = (a*x)*w over 16*blocks elements.", "dst", "x", "w")
	fn.broadcast("a", 16)
	fn.loop(func() {
		fn.op("VLD1.P 64(R2), %s", list(0, 4, "S4"))
		fn.op("VLD1.P 64(R3), %s", list(4, 4, "S4"))
		for i := range 4 {
			fn.word(fmul(false, i, i, 16))
			fn.word(fmul(false, i, i, 4+i))
		}
		fn.op("VST1.P %s, 64(R1)", list(0, 4, "S4"))
	})
}

func vecMax(f *file) {
	const x, above = 4, 8
	fn := vecText(f, "max", "x *float32, lanes *float32",
		"raises the 16 lanes to the elements of x, over 16*blocks of them, ignoring NaN.", "x", "lanes")
	fn.op("VLD1 (R2), %s", list(0, 4, "S4"))
	fn.loopThen(func() {
		fn.op("VLD1.P 64(R1), %s", list(x, 4, "S4"))
		for i := range 4 {
			fn.word(fcmgt(above+i, x+i, i))
			fn.op("VBIT V%d.B16, V%d.B16, V%d.B16", above+i, x+i, i)
		}
	}, func() { fn.op("VST1 %s, (R2)", list(0, 4, "S4")) })
}

func vecWiden(f *file) {
	fn := vecText(f, "widen", "dst *float32, src *uint16", "widens 16*blocks bfloat16 to float32.", "dst", "src")
	fn.loop(func() {
		fn.op("VLD1.P 32(R2), %s", list(4, 2, "H8"))
		for i := range 2 {
			fn.word(shll(2*i, 4+i))
			fn.word(shll2(2*i+1, 4+i))
		}
		fn.op("VST1.P %s, 64(R1)", list(0, 4, "S4"))
	})
}
