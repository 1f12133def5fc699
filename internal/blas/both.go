package blas

import (
	"math"
	"unsafe"
)

// DgemvBoth computes y = A*x + y and z = A^T*w + z, where A is m x n: what a strip of
// a symmetric matrix's triangle contributes to a product with a vector. It is two
// calls of Dgemv, to the bit, that read A once where there is a kernel for it.
func (e *Engine) DgemvBoth(m, n int, a []float64, lda int, x, y, w, z []float64) {
	kn := &e.suite.f64
	block := dotBlock[float64]()
	blocks, size := n/block, int(unsafe.Sizeof(float64(0)))
	// Dgemv sums longer columns, and those of a larger A, in parts (see product.run).
	if kn.both == nil || blocks == 0 || m == 0 || m%dotCols > 0 || m > innerBlock[float64]() || m*n*size > directBytes {
		e.Dgemv(false, m, n, 1, a, lda, x, 1, y)
		e.Dgemv(true, m, n, 1, a, lda, w, 1, z)
		return
	}
	checkMatrix(m, n, lda, len(a), badLdA, shortA)
	if min(len(x), len(z)) < n {
		panic(shortX)
	}
	if min(len(y), len(w)) < m {
		panic(shortY)
	}
	flops64.Add(4 * int64(m) * int64(n))
	scratch := pool64.get(n)
	defer pool64.put(scratch)
	sum := scratch.data[:n]
	clear(sum)
	var out [dotCols]float64
	add := func(i int) {
		for c, v := range out {
			y[i+c] += v
		}
	}
	for i := 0; i < m; i += dotCols {
		kn.both(blocks, &a[i*lda], lda*size, &x[0], &w[i], &sum[0], &out[0])
		add(i)
	}
	if even := blocks * block; even < n {
		// The rest of the rows, with zeros up to a block.
		restX, rest := make([]float64, block), make([]float64, dotCols*block)
		copy(restX, x[even:n])
		for i := 0; i < m; i += dotCols {
			for c := range dotCols {
				copy(rest[c*block:], a[(i+c)*lda+even:(i+c)*lda+n])
				for j := even; j < n; j++ {
					sum[j] = math.FMA(w[i+c], a[(i+c)*lda+j], sum[j])
				}
			}
			kn.dot[len(kn.dot)-1](1, &restX[0], 0, &rest[0], block*size, &out[0])
			add(i)
		}
	}
	for j, v := range sum {
		z[j] += v
	}
}
