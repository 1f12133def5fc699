package mla

import (
	"fmt"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/svd"
)

// Narrow returns the attention with a latent of the given, smaller rank: the joint truncated SVD of its own up-projections
// under the covariance input = E[x x^T] [d, d] and the heads' query covariances E[q_h q_h^T] [NoPEDim, NoPEDim], with the
// energies of keys and values counted alike.
func (a *Attention) Narrow(e *blas.Engine, rank int, input svd.Matrix, queries []svd.Matrix) (*Attention, error) {
	latent := svd.GramMetric(svd.GramMetric(input).Congruence(e, a.Down))
	var keys, values []svd.Block
	var keyEnergy, valueEnergy float64
	for h := range a.Heads {
		w := headCols(a.O, h, a.VDim)
		key := svd.Block{A: headRows(a.UpK, h, a.NoPEDim), Q: svd.GramMetric(queries[h])}
		value := svd.Block{A: headRows(a.UpV, h, a.VDim), Q: svd.GramMetric(svd.Product(e, true, false, w, w))}
		keyEnergy += key.Energy(e, latent)
		valueEnergy += value.Energy(e, latent)
		keys, values = append(keys, key), append(values, value)
	}
	if keyEnergy > 0 && valueEnergy > 0 {
		for h := range keys {
			keys[h].Q = keys[h].Q.Scaled(valueEnergy / keyEnergy)
		}
	}
	joint, err := svd.Joint(append(keys, values...), latent, rank, svd.Options{Engine: e})
	if err != nil {
		return nil, fmt.Errorf("latent of %d rows: %w", rank, err)
	}
	out := *a
	out.Down = svd.Product(e, false, false, joint.Down, a.Down)
	out.UpK, out.UpV = svd.NewMatrix(a.UpK.Rows, rank), svd.NewMatrix(a.UpV.Rows, rank)
	for h := range a.Heads {
		accumulate(headRows(out.UpK, h, a.NoPEDim), joint.Up[h])
		accumulate(headRows(out.UpV, h, a.VDim), joint.Up[a.Heads+h])
	}
	return &out, nil
}
