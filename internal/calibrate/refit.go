package calibrate

import (
	"math"

	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/svd"
)

// ridges are the shares of the mean diagonal that the refit tries.
var ridges = []float64{1e-4, 1e-3, 1e-2, 1e-1}

// refit solves the output projection and its bias anew by weighted ridge least squares against the target, in the
// directions of the correction: (A^T A + ridge) dW = A^T R, A the heads' outputs with a column of ones, R the residual. The
// ridge with the least held-out error is taken; none, if all make it worse.
func (r *run) refit(a *model.MLA, train, hold *layerData, report *LayerReport) error {
	e, d, in := r.engine, a.O.Out, a.O.In
	n := train.batch.Tokens()
	width := in + 1

	outputs := make([]float32, n*in)
	a.HeadOutputs(e, train.batch, train.convertedIn, outputs)
	rows := make([]float32, n*width)
	residual := make([]float32, n*d)
	a.O.Apply(e, n, outputs, in, 0, residual, d)
	for t := range n {
		root := float32(math.Sqrt(train.weights[t]))
		for j, v := range outputs[t*in : (t+1)*in] {
			rows[t*width+j] = root * v
		}
		rows[t*width+in] = root
		for j := range d {
			i := t*d + j
			residual[i] = root * (train.target[i] - residual[i] - a.OBias[j])
		}
	}
	gram := svd.NewMatrix(width, width)
	e.SsyrkAcc(width, n, 1, rows, width, gram.Data, width)
	right := svd.NewMatrix(width, d)
	gemmAcc(r, width, d, n, rows, residual, right)
	mean := 0.0
	for i := range width {
		mean += gram.At(i, i) / float64(width)
	}

	holdOutputs := make([]float32, hold.batch.Tokens()*in)
	a.HeadOutputs(e, hold.batch, hold.convertedIn, holdOutputs)
	y := make([]float32, len(hold.target))
	old := a.O
	oldBias := a.OBias
	for _, ridge := range ridges {
		x, err := svd.SolveSPD(e, gram, ridge*mean, right)
		if err != nil {
			return err
		}
		w := model.NewWeight(d, in, append([]float32(nil), old.F32...))
		bias := append([]float32(nil), oldBias...)
		for i := range in {
			for j, v := range x.Row(i) {
				w.F32[j*in+i] += float32(v)
			}
		}
		for j, v := range x.Row(in) {
			bias[j] += float32(v)
		}
		w.Apply(e, hold.batch.Tokens(), holdOutputs, in, 0, y, d)
		addRow(y, bias)
		if err := relativeError(y, hold.target, hold.weights); err < report.Refit {
			report.Refit, report.Ridge = err, ridge
			a.O, a.OBias = w, bias
		}
	}
	return nil
}

// addRow adds a row to every row of y.
func addRow(y, row []float32) {
	for i := 0; i < len(y); i += len(row) {
		for j, v := range row {
			y[i+j] += v
		}
	}
}

// gemmAcc adds A^T B to c in float64, A [n, p] and B [n, q] float32, in blocks of rows that are summed in float32.
func gemmAcc(r *run, p, q, n int, a, b []float32, c svd.Matrix) {
	const block = 512
	sum := make([]float32, p*q)
	for lo := 0; lo < n; lo += block {
		rows := min(block, n-lo)
		r.engine.Sgemm(true, false, p, q, rows, 1, a[lo*p:], p, b[lo*q:], q, 0, sum, q)
		for i, v := range sum {
			c.Data[i] += float64(v)
		}
	}
}
