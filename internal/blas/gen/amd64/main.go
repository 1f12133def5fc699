// Command amd64 writes the AVX2 and AVX-512 kernels of package blas or vec. Run
// it through go generate in internal/blas and internal/vec.
//
//	amd64 -pkg blas|vec -out FILE.s -stubs FILE.go
//
// Every kernel is described once, over the element type and the vector
// extension, and emitted for each combination:
//
//	micro.go   tiles of C from packed panels (the inner loop of every product)
//	dot.go     products with few rows, straight from unpacked rows; symmetric ones
//	pack.go    transposing, copying and widening into panels
//	vec.go     package vec: the exponential and what else is elementwise
package main

import (
	"fmt"
	"os"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/reg"
)

// elem is an element type of the matrices.
type elem struct {
	tag    string // in function names
	goType string
	size   int // bytes
}

var (
	f32 = elem{"F32", "float32", 4}
	f64 = elem{"F64", "float64", 8}
)

// ext is a vector extension.
type ext struct {
	tag   string // in function names
	bytes int    // in a vector register
	regs  int    // vector registers
	vec   func() reg.VecVirtual
	rows  bool // kernels of products compute tiles side by side
	// unfetched is the height of the tiles that leave their panels of B to the
	// hardware's prefetching: the tallest, for which B is packed but with a few rows
	// of A. 0 if none do.
	unfetched int
}

var (
	avx2   = ext{"AVX2", 32, 16, YMM, true, 6}
	avx512 = ext{"AVX512", 64, 32, ZMM, false, 0}
)

func main() {
	ConstraintExpr("!noasm")
	switch pkg := packageFlag(); pkg {
	case "blas":
		blasKernels()
	case "vec":
		vecKernels()
	default:
		fmt.Fprintf(os.Stderr, "amd64: no kernels for package %q\n", pkg)
		os.Exit(2)
	}
	Generate()
}

// packageFlag returns the value of avo's own -pkg flag, which avo parses only
// when all functions are built.
func packageFlag() string {
	if i := slices.Index(os.Args, "-pkg"); i >= 0 && i+1 < len(os.Args) {
		return os.Args[i+1]
	}
	return ""
}

func blasKernels() {
	for _, t := range []elem{f32, f64} {
		for nv := 1; nv <= 3; nv++ {
			// Six rows and two vectors fill the registers as four and three do, and read a third less of B.
			if nv <= 2 {
				for _, mr := range []int{1, 2, 4, 6} {
					micro(t, avx2, mr, nv)
				}
				direct(t, avx2, 6, nv)
			}
			for _, mr := range []int{1, 2, 4, 8} {
				micro(t, avx512, mr, nv)
			}
		}
		dot(t, avx2, 1, false)
		for _, mr := range []int{1, 2, 4} {
			dot(t, avx512, mr, false)
		}
	}
	both(f64, avx2)
	dot(f32, avx2, 1, true)
	for _, mr := range []int{1, 2, 4} {
		dot(f32, avx512, mr, true)
	}
	transposeF32x8()
	transposeF32x4()
	transposeF64x4()
	transposeBF16x8()
	copyRows()
	widenRows()
	addScaledF64()
}

// text starts a function that neither lets its pointers escape nor needs stack.
func text(name, signature, doc string, args ...any) {
	TEXT(name, 0x4, "func"+signature) // NOSPLIT
	Pragma("noescape")
	Doc(fmt.Sprintf(name+" "+doc, args...))
}
