package calibrate

import (
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/mla"
	"github.com/mlaconvert/mlaconvert/svd"
)

// layerStatistics measures a layer for a latent of the given rank, in a basis where [mla.MetricWidth] says so. layer is the
// source's weights in float64.
func layerStatistics(e *blas.Engine, a *model.GQA, layer *mla.Source, b *model.Batch, h []float32, rank, context int) (*mla.Statistics, error) {
	if width := mla.MetricWidth(a.Q.In, a.K.Out, rank); width < a.Q.In {
		return ReducedStatistics(e, a, layer, b, h, width, context)
	}
	return Statistics(e, a, b, h, context), nil
}

// ReducedStatistics measures the same as [Statistics] in a basis of at most width directions of the inputs. The attention is
// that of the inputs themselves; no matrix of order d is formed but their second moment.
func ReducedStatistics(e *blas.Engine, a *model.GQA, layer *mla.Source, b *model.Batch, h []float32, width, context int) (*mla.Statistics, error) {
	st, p := sharedStatistics(e, a, b, h)
	queries := make([]svd.Matrix, len(st.Heads))
	for hd := range queries {
		queries[hd] = st.Heads[hd].Query
	}
	var err error
	if st.Basis, err = mla.NewBasis(e, layer, st.Input, queries, width); err != nil {
		return nil, err
	}
	rows := model.Stacked(st.Basis.Rows)
	n, m := b.Tokens(), rows.Out
	z := make([]float32, n*m)
	rows.Apply(e, n, h, rows.In, 0, z, m)
	st.Input = svd.NewMatrix(m, m)
	e.SsyrkAcc(m, n, 1/float64(n), z, m, st.Input.Data, m)
	measureHeads(e, st, p, b, z, context)
	return st, nil
}
