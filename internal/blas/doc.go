// Package blas holds the dense kernels that mlaconvert's numerics run on:
// matrix product and symmetric rank-k update in float32 and float64, and the
// product with bfloat16 weights.
//
// Matrices are row-major with leading dimensions counted in elements, as in
// gonum's blas packages. A caller's mistake (a negative size, a short slice, a
// leading dimension that is too small) panics with a message that names the
// argument.
//
// Every result is independent of the number of threads: an element of C is the
// sum of its products in the order of the inner dimension, cut into blocks that
// depend on the shape alone, whichever goroutine computes it. The assembly
// kernels of all machines multiply and add in the same order with one rounding
// (FMA), so that they agree to the bit; the portable kernels round twice.
//
// The assembly is generated: see gen/amd64 (with avo) and gen/arm64.
package blas

//go:generate go -C gen/amd64 run . -out ../../asm_amd64.s -stubs ../../asm_amd64.go -pkg blas
//go:generate go -C gen/arm64 run . -pkg blas -out ../../asm_arm64.s -stubs ../../asm_arm64.go
