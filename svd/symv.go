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

const (
	symvTasks = 8
	// symvStrip is the number of rows of a strip, which stays in cache from its
	// product with a vector to that of its transpose where these are not one. Tasks
	// are whole strips.
	symvStrip = 64
)

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
		s.first[t] = min(n, int(r)/symvStrip*symvStrip)
	}
	s.first[tasks] = n
	e.For(tasks, func(t int) {
		i0, i1 := s.first[t], s.first[t+1]
		part := s.partial.Row(t)[i0:n]
		clear(part)
		symvRows(e, a.Slice(i0, i1, i0, n), x[i0:n], part)
	})
	clear(y[:n])
	for t := range tasks {
		i0 := s.first[t]
		axpy(1, s.partial.Row(t)[i0:n], y[i0:n])
	}
}

// symvRows adds to y what the rows of a, the first rows of an upper triangle,
// contribute to A x: strips of rows, which leave triangles on the diagonal.
func symvRows(e *blas.Engine, a Matrix, x, y []float64) {
	n := a.Cols
	for i := 0; i < a.Rows; i += symvStrip {
		next := min(i+symvStrip, a.Rows)
		for r := i; r < next; r++ {
			row := a.Row(r)
			y[r] += row[r]*x[r] + dot(row[r+1:next], x[r+1:next])
			axpy(x[r], row[r+1:next], y[r+1:next])
		}
		if next == n {
			return
		}
		rest := a.Data[i*a.Stride+next:]
		e.DgemvBoth(next-i, n-next, rest, a.Stride, x[next:], y[i:next], x[i:next], y[next:])
	}
}
