package main

import "fmt"

// An inst is an encoded instruction and its text in Arm's syntax (Arm
// Architecture Reference Manual, C7.2).
type inst struct {
	code uint32
	text string
}

// three encodes a three-register vector instruction, Vd = op(Vn, Vm), for four
// floats or two doubles, which differ in the size bit 22.
func three(base uint32, name string, double bool, d, n, m int) inst {
	arr := "4S"
	if double {
		base |= 1 << 22
		arr = "2D"
	}
	return inst{base | uint32(m)<<16 | uint32(n)<<5 | uint32(d), fmt.Sprintf("%s V%d.%s, V%d.%s, V%d.%s", name, d, arr, n, arr, m, arr)}
}

func fadd(double bool, d, n, m int) inst  { return three(0x4E20D400, "FADD", double, d, n, m) }
func fsub(double bool, d, n, m int) inst  { return three(0x4EA0D400, "FSUB", double, d, n, m) }
func fmul(double bool, d, n, m int) inst  { return three(0x6E20DC00, "FMUL", double, d, n, m) }
func fdiv(double bool, d, n, m int) inst  { return three(0x6E20FC00, "FDIV", double, d, n, m) }
func faddp(double bool, d, n, m int) inst { return three(0x6E20D400, "FADDP", double, d, n, m) }

func fmax(d, n, m int) inst  { return three(0x4E20F400, "FMAX", false, d, n, m) }
func fmin(d, n, m int) inst  { return three(0x4EA0F400, "FMIN", false, d, n, m) }
func fcmgt(d, n, m int) inst { return three(0x6EA0E400, "FCMGT", false, d, n, m) }

// fmlaLane encodes FMLA by element: Vd += Vn * Vm[lane].
func fmlaLane(double bool, d, n, m, lane int) inst {
	code := uint32(0x4F801000) | uint32(m)<<16 | uint32(n)<<5 | uint32(d)
	arr, e := "4S", "S"
	if double {
		code |= 1<<22 | uint32(lane)<<11
		arr, e = "2D", "D"
	} else {
		code |= uint32(lane&1)<<21 | uint32(lane>>1)<<11
	}
	return inst{code, fmt.Sprintf("FMLA V%d.%s, V%d.%s, V%d.%s[%d]", d, arr, n, arr, m, e, lane)}
}

// two encodes a two-register instruction with its arrangements in the text.
func two(base uint32, format string, d, n int) inst {
	return inst{base | uint32(n)<<5 | uint32(d), fmt.Sprintf(format, d, n)}
}

// shll and shll2 shift the lower and upper four halfwords of Vn left by 16 into
// words: bfloat16 to float32.
func shll(d, n int) inst  { return two(0x2E613800, "SHLL V%d.4S, V%d.4H, #16", d, n) }
func shll2(d, n int) inst { return two(0x6E613800, "SHLL2 V%d.4S, V%d.8H, #16", d, n) }

// fcvtl and fcvtl2 convert the lower and upper two floats of Vn to doubles.
func fcvtl(d, n int) inst  { return two(0x0E617800, "FCVTL V%d.2D, V%d.2S", d, n) }
func fcvtl2(d, n int) inst { return two(0x4E617800, "FCVTL2 V%d.2D, V%d.4S", d, n) }

// sshr shifts four signed words right.
func sshr(d, n, bits int) inst {
	i := two(0x4F000400, "SSHR V%d.4S, V%d.4S", d, n)
	i.code |= uint32(64-bits) << 16
	i.text += fmt.Sprintf(", #%d", bits)
	return i
}
