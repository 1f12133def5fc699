package mla

import "github.com/mlaconvert/mlaconvert/svd"

// The matrices here come from svd.NewMatrix or Clone and have no padding between their rows, except where a function
// says that it takes any.

// accumulate adds b (any stride) to a.
func accumulate(a, b svd.Matrix) { addScaled(a, 1, b) }

func subtract(a, b svd.Matrix) { addScaled(a, -1, b) }

// addScaled adds f*b to a; any strides.
func addScaled(a svd.Matrix, f float64, b svd.Matrix) {
	for i := range a.Rows {
		row := a.Row(i)
		for j, v := range b.Row(i) {
			row[j] += f * v
		}
	}
}

// scaled returns f*a.
func scaled(a svd.Matrix, f float64) svd.Matrix {
	out := a.Clone()
	for i := range out.Data {
		out.Data[i] *= f
	}
	return out
}

// trace returns the sum of the diagonal.
func trace(a svd.Matrix) float64 {
	sum := 0.0
	for i := range a.Rows {
		sum += a.At(i, i)
	}
	return sum
}

// normalised returns a copy of trace 1; a zero matrix stays zero, and one whose trace is negative is rounding and becomes so.
func normalised(a svd.Matrix) svd.Matrix {
	t := trace(a)
	if t <= 0 {
		return svd.NewMatrix(a.Rows, a.Cols)
	}
	return scaled(a, 1/t)
}

// addRidge adds the given share of the mean of the diagonal to the diagonal.
func addRidge(a svd.Matrix, share float64) {
	ridge := share * trace(a) / float64(a.Rows)
	for i := range a.Rows {
		a.Set(i, i, a.At(i, i)+ridge)
	}
}

// inner is the sum of the products of the elements.
func inner(a, b svd.Matrix) float64 {
	sum := 0.0
	for i := range a.Rows {
		sum += dot(a.Row(i), b.Row(i))
	}
	return sum
}

// stackRows is the rows of a above those of b; any strides.
func stackRows(a, b svd.Matrix) svd.Matrix {
	out := svd.NewMatrix(a.Rows+b.Rows, a.Cols)
	accumulate(out.Slice(0, a.Rows, 0, a.Cols), a)
	accumulate(out.Slice(a.Rows, out.Rows, 0, a.Cols), b)
	return out
}
