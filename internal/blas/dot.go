package blas

import "unsafe"

// dotTask is the number of columns of C that a goroutine takes at a time.
const dotTask = 64

// dotSteps is the length of the inner products that are added to C at once: so
// many elements of some rows of A and B fit in the first-level caches.
const dotSteps = 2048

// runDot computes the product of few rows, C = alpha*A*B^T + beta*C with the
// rows of A and B contiguous: inner products, which read B once, where it lies.
func (g *product[T, S]) runDot() {
	g.engine.run(g.engine.workers(g.work()), (g.n+dotTask-1)/dotTask, func(i int) {
		g.dotColumns(i*dotTask, min(g.n, (i+1)*dotTask))
	})
}

func (g *product[T, S]) dotColumns(j0, j1 int) {
	var t T
	var s S
	sizeA, sizeB := int(unsafe.Sizeof(t)), int(unsafe.Sizeof(s))
	scratch := g.pool.get(g.kn.dotRows[0] * dotCols)
	defer g.pool.put(scratch)
	out := scratch.data
	for p := 0; p < g.k; p += dotSteps {
		blocks := min(dotSteps, g.k-p) / dotBlock[T]()
		beta := g.beta
		if p > 0 {
			beta = 1
		}
		for j := j0; j < j1; {
			cols, strideB := dotCols, g.b.ld*sizeB
			if j1-j < dotCols {
				// The kernel reads the one column dotCols times.
				cols, strideB = 1, 0
			}
			for i := 0; i < g.m; {
				h := 0
				for g.kn.dotRows[h] > g.m-i {
					h++
				}
				g.kn.dot[h](blocks, g.a.from(i, p), g.a.ld*sizeA, g.b.from(j, p), strideB, &out[0])
				for r := range g.kn.dotRows[h] {
					for c := range cols {
						g.storeDot(i+r, j+c, out[r*dotCols+c], beta)
					}
				}
				i += g.kn.dotRows[h]
			}
			j += cols
		}
	}
}

func (g *product[T, S]) storeDot(i, j int, v, beta T) {
	c := &g.c[i*g.ldc+j]
	if beta == 0 {
		*c = g.alpha * v
	} else {
		*c = T(g.alpha*v) + T(beta**c) // not fused, on any machine
	}
}
