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
	if rank < 0 {
		return nil, badRank(rank, 0)
	}
	latent := svd.GramMetric(svd.GramMetric(input).Congruence(e, a.Down))
	var keys, values []svd.Block
	for h := range a.Heads {
		w := headCols(a.O, h, a.VDim)
		keys = append(keys, svd.Block{A: headRows(a.UpK, h, a.NoPEDim), Q: svd.GramMetric(queries[h])})
		values = append(values, svd.Block{A: headRows(a.UpV, h, a.VDim), Q: svd.GramMetric(svd.Product(e, true, false, w, w))})
	}
	joint, err := svd.Joint(balanced(e, keys, values, latent), latent, rank, svd.Options{Engine: e})
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
