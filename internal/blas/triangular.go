package blas

import "unsafe"

// Products and solutions with a triangular matrix, split recursively into halves
// so that all but the diagonal blocks is done by the matrix product.

// triangleBlock is the order of the diagonal blocks.
const triangleBlock = 64

// A triangle is the operand op(A) of trsm or trmm.
type triangle[T float] struct {
	data  []T
	ld    int
	n     int
	trans bool
	lower bool // of op(A)
	unit  bool
}

func (a triangle[T]) at(i, j int) T {
	if a.trans {
		i, j = j, i
	}
	return a.data[i*a.ld+j]
}

// halves cuts op(A) into diagonal blocks and the block between them, which is
// below the diagonal if op(A) is lower and above if not.
func (a triangle[T]) halves() (first, second triangle[T], between []T) {
	h := roundUp(a.n/2, triangleBlock)
	first, second = a, a
	first.n, second.n = h, a.n-h
	second.data = a.data[h*a.ld+h:]
	if a.lower != a.trans {
		return first, second, a.data[h*a.ld:]
	}
	return first, second, a.data[h:]
}

// A triangular is one call of trsm or trmm on B, m x n.
type triangular[T float] struct {
	engine *Engine
	kn     *kernels[T, T]
	pool   *pool[T]
	solve  bool
	left   bool
	ldb    int
	other  int // the dimension of B that op(A) does not act on
}

// multiply computes B = alpha*op(A)*B or alpha*B*op(A), or with op(A) inverted.
func (t *triangular[T]) multiply(a triangle[T], alpha T, b []T) {
	if a.n <= triangleBlock {
		t.diagonal(a, alpha, b)
		return
	}
	first, second, between := a.halves()
	b1, b2 := b, b[first.n:]
	if t.left {
		b2 = b[first.n*t.ldb:]
	}
	// With op(A) on the left, a lower one carries B1 over to B2 and an upper one
	// B2 to B1; on the right it is the other way round.
	src, dst, from, to := b1, b2, first, second
	if a.lower != t.left {
		src, dst, from, to = b2, b1, second, first
	}
	if t.solve {
		t.multiply(from, alpha, src)
		t.carry(a, between, from.n, to.n, -1, src, alpha, dst)
		t.multiply(to, 1, dst)
	} else {
		t.multiply(to, alpha, dst)
		t.carry(a, between, from.n, to.n, alpha, src, 1, dst)
		t.multiply(from, alpha, src)
	}
}

// carry computes dst = alpha*op(between)*src + beta*dst, or with src on the left.
func (t *triangular[T]) carry(a triangle[T], between []T, from, to int, alpha T, src []T, beta T, dst []T) {
	g := product[T, T]{
		engine: t.engine, kn: t.kn, pool: t.pool, inner: innerBlock[T](),
		k: from, alpha: alpha, beta: beta, c: dst, ldc: t.ldb,
	}
	if t.left {
		g.m, g.n = to, t.other
		g.a, g.b = operand[T]{between, a.ld, !a.trans}, operand[T]{src, t.ldb, false}
	} else {
		g.m, g.n = t.other, to
		g.a, g.b = operand[T]{src, t.ldb, true}, operand[T]{between, a.ld, a.trans}
	}
	g.run()
}

// diagonal is multiply for a single block. Slices of B are brought into the form
// in which a lower triangle stands on the left, its rows in the order in which
// they depend on each other; each row then is one call of a tile's kernel with
// the rows before it.
func (t *triangular[T]) diagonal(a triangle[T], alpha T, b []T) {
	n := a.n
	tri := t.pool.get(triangleBlock * triangleBlock)
	defer t.pool.put(tri)
	// line returns which line of B is row i.
	reverse := a.lower != t.left
	line := func(i int) int {
		if reverse {
			return n - 1 - i
		}
		return i
	}
	l := tri.data
	for i := range n {
		for j := range i + 1 {
			if t.left {
				l[i*n+j] = a.at(line(i), line(j))
			} else {
				l[i*n+j] = a.at(line(j), line(i))
			}
		}
		if a.unit {
			l[i*n+i] = 1
		}
	}
	width := t.kn.lanes * t.kn.vectors * 2
	t.engine.run(t.engine.workers(n*n*t.other/2), (t.other+width-1)/width, func(s int) {
		rows := t.pool.get(n * width)
		defer t.pool.put(rows)
		x := rows.data[:n*width]
		first := s * width
		w := min(width, t.other-first)
		if t.left {
			for i := range n {
				at := line(i)*t.ldb + first
				copy(x[i*width:i*width+w], b[at:at+w])
				clear(x[i*width+w : (i+1)*width])
			}
		} else {
			for i := range n {
				for j := range w {
					x[i*width+j] = b[(first+j)*t.ldb+line(i)]
				}
				clear(x[i*width+w : (i+1)*width])
			}
		}
		if t.solve {
			t.solveRows(l, n, alpha, x, width)
		} else {
			t.multiplyRows(l, n, alpha, x, width)
		}
		if t.left {
			for i := range n {
				at := line(i)*t.ldb + first
				copy(b[at:at+w], x[i*width:])
			}
		} else {
			for i := range n {
				for j := range w {
					b[(first+j)*t.ldb+line(i)] = x[i*width+j]
				}
			}
		}
	})
}

// row computes row i of x as alpha times the rows before it, weighted by row i of
// l, plus beta times itself.
func (t *triangular[T]) row(l []T, n, i int, alpha, beta T, x []T, width int) {
	stride := width * int(unsafe.Sizeof(alpha))
	last := len(t.kn.heights) - 1
	panel := t.kn.lanes * t.kn.vectors
	next := panel * int(unsafe.Sizeof(alpha))
	t.kn.micro[last][t.kn.vectors-1](i, &l[i*n], 0, &x[0], stride, next, &x[i*width], stride, width/panel, alpha, beta)
}

// solveRows replaces X by alpha*L^-1*X (forward substitution).
func (t *triangular[T]) solveRows(l []T, n int, alpha T, x []T, width int) {
	for i := range n {
		t.row(l, n, i, -1, alpha, x, width)
		if d := l[i*n+i]; d != 1 {
			row := x[i*width : (i+1)*width]
			for j := range row {
				row[j] /= d
			}
		}
	}
}

// multiplyRows replaces X by alpha*L*X.
func (t *triangular[T]) multiplyRows(l []T, n int, alpha T, x []T, width int) {
	for i := n - 1; i >= 0; i-- {
		t.row(l, n, i, alpha, alpha*l[i*n+i], x, width)
	}
}
