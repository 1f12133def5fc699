package calibrate

import (
	"math"
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/svd"
)

// ridges are the shares of the mean diagonal that the refit tries.
var ridges = []float64{1e-4, 1e-3, 1e-2, 1e-1, 1}

// refitRows is how many tokens go into the normal equations at once.
const refitRows = 512

// refit solves the output projection and its bias, if it has one, anew by weighted ridge least squares against the target,
// in the directions of the correction: (A^T A + ridge) dW = A^T R, A the heads' outputs with a column of ones, R the
// residual. The ridge with the least held-out error is taken; none, if all make it worse than report.Refit is, or if the
// options want no refit or the output projection is zero. The attention's outputs in train and hold, which [run.attend] has set,
// follow.
func (r *run) refit(a *model.MLA, train, hold *layerData, report *LayerReport) error {
	if !r.options.Refit || isZero(a.O.F32) {
		return nil
	}
	e, d, in := r.engine, a.O.Out, a.O.In
	n := train.batch.Tokens()
	width := in
	if a.OBias != nil {
		width++
	}

	gram, right := svd.NewMatrix(width, width), svd.NewMatrix(width, d)
	rows, residual, sum := make([]float32, refitRows*width), make([]float32, refitRows*d), make([]float32, width*d)
	for lo := 0; lo < n; lo += refitRows {
		m := min(refitRows, n-lo)
		e.For(m, func(k int) {
			t := lo + k
			root := float32(math.Sqrt(train.weights[t]))
			for j, v := range train.heads[t*in : (t+1)*in] {
				rows[k*width+j] = root * v
			}
			if width > in {
				rows[k*width+in] = root
			}
			got, want := train.converted[t*d:(t+1)*d], train.target[t*d:(t+1)*d]
			for j, v := range want {
				residual[k*d+j] = root * (v - got[j])
			}
		})
		e.SsyrkAcc(width, m, 1, rows, width, gram.Data, width)
		// Summed in float32 over the rows of a block, in float64 over the blocks.
		e.Sgemm(true, false, width, d, m, 1, rows, width, residual, d, 0, sum, d)
		for i, v := range sum {
			right.Data[i] += float64(v)
		}
	}
	mean := meanDiagonal(gram)
	if mean == 0 {
		return nil // no token counts, or the heads give nothing
	}
	y := make([]float32, len(hold.target))
	old := a.O
	oldBias := a.OBias
	for _, ridge := range ridges {
		x, err := svd.SolveSPD(e, gram, ridge*mean, right)
		if err != nil {
			return err
		}
		w := model.NewWeight(d, in, append([]float32(nil), old.F32...))
		bias := slices.Clone(oldBias)
		for i := range in {
			for j, v := range x.Row(i) {
				w.F32[j*in+i] += float32(v)
			}
		}
		w.Apply(e, hold.batch.Tokens(), hold.heads, in, 0, y, d)
		if bias != nil {
			for j, v := range x.Row(in) {
				bias[j] += float32(v)
			}
			addRow(y, bias)
		}
		if err := relativeError(y, hold.target, hold.weights); err < report.Refit {
			report.Refit, report.Ridge = err, ridge
			a.O, a.OBias = w, bias
		}
	}
	if report.Ridge != 0 {
		for _, t := range []*layerData{train, hold} {
			a.Output(e, t.batch.Tokens(), t.heads, t.converted)
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
