package svd

import (
	"math"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// symv multiplies symmetric matrices held as upper triangles by vectors. Each
// element is read once and used for both of its places. The rows are cut into
// tasks by the order of the matrix alone, and the partial results are added in
// the order of the tasks, so that the sum does not depend on the number of
// threads.
type symv struct {
	partial Matrix
	first   []int // first row of each task
}

const symvTasks = 8

func newSymv(n int) *symv {
	return &symv{partial: NewMatrix(symvTasks, n), first: make([]int, symvTasks+1)}
}

// multiply writes A x into y.
func (s *symv) multiply(e *blas.Engine, a Matrix, x, y []float64) {
	const perTask = 1 << 14 // elements worth a goroutine
	n := a.Rows
	tasks := min(max(n*n/2/perTask, 1), symvTasks)
	for t := range tasks + 1 { // equal areas of the triangle
		r := float64(n) * (1 - math.Sqrt(1-float64(t)/float64(tasks)))
		s.first[t] = min(n, int(r)/4*4)
	}
	s.first[tasks] = n
	e.For(tasks, func(t int) {
		i0, i1 := s.first[t], s.first[t+1]
		part := s.partial.Row(t)[i0:n]
		clear(part)
		symvRows(a.Slice(i0, i1, i0, n), x[i0:n], part)
	})
	clear(y[:n])
	for t := range tasks {
		i0 := s.first[t]
		axpy(1, s.partial.Row(t)[i0:n], y[i0:n])
	}
}

// symvRows adds to y what the rows of a, the first rows of an upper triangle,
// contribute to A x.
func symvRows(a Matrix, x, y []float64) {
	n := a.Cols
	i := 0
	for ; i+4 <= a.Rows; i += 4 {
		r0, r1, r2, r3 := a.Row(i), a.Row(i+1), a.Row(i+2), a.Row(i+3)
		x0, x1, x2, x3 := x[i], x[i+1], x[i+2], x[i+3]
		y[i] += r0[i]*x0 + r0[i+1]*x1 + r0[i+2]*x2 + r0[i+3]*x3
		y[i+1] += r0[i+1]*x0 + r1[i+1]*x1 + r1[i+2]*x2 + r1[i+3]*x3
		y[i+2] += r0[i+2]*x0 + r1[i+2]*x1 + r2[i+2]*x2 + r2[i+3]*x3
		y[i+3] += r0[i+3]*x0 + r1[i+3]*x1 + r2[i+3]*x2 + r3[i+3]*x3
		if i+4 == n {
			continue
		}
		xs := x[i+4 : n]
		ys := y[i+4 : n][:len(xs)]
		r0, r1, r2, r3 = r0[i+4 : n][:len(xs)], r1[i+4 : n][:len(xs)], r2[i+4 : n][:len(xs)], r3[i+4 : n][:len(xs)]
		var s0, s1, s2, s3 float64
		for j, xj := range xs {
			a0, a1, a2, a3 := r0[j], r1[j], r2[j], r3[j]
			s0 += a0 * xj
			s1 += a1 * xj
			s2 += a2 * xj
			s3 += a3 * xj
			ys[j] += (a0*x0 + a1*x1) + (a2*x2 + a3*x3)
		}
		y[i] += s0
		y[i+1] += s1
		y[i+2] += s2
		y[i+3] += s3
	}
	for ; i < a.Rows; i++ {
		r := a.Row(i)
		y[i] += dot(r[i:], x[i:n])
		axpy(x[i], r[i+1:], y[i+1:n])
	}
}
