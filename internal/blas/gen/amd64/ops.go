package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The instructions that exist per element type.

func loadu(t elem, from Op, to reg.Register) {
	if t.size == 4 {
		VMOVUPS(from, to)
	} else {
		VMOVUPD(from, to)
	}
}

func storeu(t elem, from reg.Register, to Op) {
	if t.size == 4 {
		VMOVUPS(from, to)
	} else {
		VMOVUPD(from, to)
	}
}

func broadcast(t elem, from Op, to reg.Register) {
	if t.size == 4 {
		VBROADCASTSS(from, to)
	} else {
		VBROADCASTSD(from, to)
	}
}

// paramAddr returns where a parameter lies on the stack.
func paramAddr(name string) Mem {
	p, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return p.Addr
}

func broadcastParam(t elem, name string, to reg.Register) {
	broadcast(t, paramAddr(name), to)
}

// fma adds a*b to acc.
func fma(t elem, a, b Op, acc reg.Register) {
	if t.size == 4 {
		VFMADD231PS(a, b, acc)
	} else {
		VFMADD231PD(a, b, acc)
	}
}

func mul(t elem, a, b Op, to reg.Register) {
	if t.size == 4 {
		VMULPS(a, b, to)
	} else {
		VMULPD(a, b, to)
	}
}

func add(t elem, a, b Op, to reg.Register) {
	if t.size == 4 {
		VADDPS(a, b, to)
	} else {
		VADDPD(a, b, to)
	}
}
