package blas

import "unsafe"

// dotTask is the number of columns of C that a goroutine takes at a time.
const dotTask = 64

// dotSteps is the length of the inner products that are added to C at once if
// there are more than dotOnce rows, which go through B one after another: so many
// elements of a few rows of B fit in the first-level cache.
const (
	dotSteps = 2048
	dotOnce  = 4
)

// runDot computes the product of few rows, C = alpha*A*B^T + beta*C with the
// rows of A and B contiguous: inner products, which read B once, where it lies.
func (g *product[T, S]) runDot() {
	g.engine.run(g.engine.workers(g.work()), (g.n+dotTask-1)/dotTask, func(i int) {
		g.dotColumns(i*dotTask, min(g.n, (i+1)*dotTask))
	})
}

func (g *product[T, S]) dotColumns(j0, j1 int) {
	block := dotBlock[T]()
	scratch := g.pool.get(g.kn.dotRows[0] * dotCols)
	defer g.pool.put(scratch)
	even := g.k / block * block
	steps := dotSteps
	if g.m <= dotOnce {
		steps = max(even, 1)
	}
	for p := 0; p < even; p += steps {
		g.dotSpan(g.a, g.b, j0, j0, j1, p, min(steps, even-p)/block, p == 0, scratch.data)
	}
	if even == g.k {
		return
	}
	// The rest of the inner dimension, with zeros up to a block.
	a := operand[T]{make([]T, g.m*block), block, true}
	for i := range g.m {
		copy(a.data[i*block:], g.a.data[i*g.a.ld+even:i*g.a.ld+g.k])
	}
	b := operand[S]{make([]S, (j1-j0)*block), block, true}
	for j := range j1 - j0 {
		copy(b.data[j*block:], g.b.data[(j0+j)*g.b.ld+even:(j0+j)*g.b.ld+g.k])
	}
	g.dotSpan(a, b, 0, j0, j1, 0, 1, even == 0, scratch.data)
}

// dotSpan adds the inner products of blocks blocks from step p to columns j0 to
// j1 of C. Line jb of b belongs to column j0.
func (g *product[T, S]) dotSpan(a operand[T], b operand[S], jb, j0, j1, p, blocks int, first bool, out []T) {
	var t T
	var s S
	strideA := a.ld * int(unsafe.Sizeof(t))
	beta := g.beta
	if !first {
		beta = 1
	}
	for j := j0; j < j1; {
		cols, strideB := dotCols, b.ld*int(unsafe.Sizeof(s))
		if j1-j < dotCols {
			// The kernel reads the one column dotCols times.
			cols, strideB = 1, 0
		}
		for i := 0; i < g.m; {
			h := 0
			for g.kn.dotRows[h] > g.m-i {
				h++
			}
			g.kn.dot[h](blocks, a.from(i, p), strideA, b.from(j-j0+jb, p), strideB, &out[0])
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

func (g *product[T, S]) storeDot(i, j int, v, beta T) {
	c := &g.c[i*g.ldc+j]
	if beta == 0 {
		*c = g.alpha * v
	} else {
		*c = T(g.alpha*v) + T(beta**c) // not fused, on any machine
	}
}
