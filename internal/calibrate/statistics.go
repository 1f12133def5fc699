package calibrate

import (
	"math"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/vec"
	"github.com/mlaconvert/mlaconvert/mla"
	"github.com/mlaconvert/mlaconvert/svd"
)

// serial runs the kernels inside tasks that are parallel already.
var serial = blas.New(1)

// Statistics measures a layer's second moments over the normed inputs h [tokens, hidden] of a batch; context is the
// longest distance, in tokens, that the distributions cover. Every token counts alike: inputs behind a norm have no
// massive activations, and weights by the residual stream gained nothing on a real model.
func Statistics(e *blas.Engine, a *model.GQA, b *model.Batch, h []float32, context int) *mla.Statistics {
	st, p := sharedStatistics(e, a, b, h)
	measureHeads(e, st, p, b, h, context)
	return st
}

// sharedStatistics are the moments that need no attention, of the inputs and the queries, with the projections, rotated.
func sharedStatistics(e *blas.Engine, a *model.GQA, b *model.Batch, h []float32) (*mla.Statistics, *model.Projected) {
	d := a.Q.In
	n := b.Tokens()
	p := a.Project(e, b, h)
	st := &mla.Statistics{Input: svd.NewMatrix(d, d), Heads: make([]mla.HeadStatistics, a.Heads)}
	e.SsyrkAcc(d, n, 1/float64(n), h, d, st.Input.Data, d)
	for hd := range st.Heads {
		st.Heads[hd].Query = queryCovariance(e, p.Q[hd*a.HeadDim:], n, a.Q.Out, a.HeadDim)
	}
	p.Rotate(e)
	return st, p
}

// measureHeads measures the heads over x [tokens, d], the inputs or their coordinates in a basis.
func measureHeads(e *blas.Engine, st *mla.Statistics, p *model.Projected, b *model.Batch, x []float32, context int) {
	// One task a head; its sums run over the sequences in order, so that they do not depend on the threads.
	e.For(len(st.Heads), func(hd int) {
		headStatistics(&st.Heads[hd], p, b, hd, x, len(x)/b.Tokens(), context)
	})
}

// headStatistics measures one head. Both of its covariances are differences of moments, whose large equal parts (most
// heads rest on one token) would leave rounding errors; they do not change when the inputs are shifted, so the inputs
// are shifted by what the head receives on average in the first sequence.
func headStatistics(st *mla.HeadStatistics, p *model.Projected, b *model.Batch, hd int, h []float32, d, context int) {
	st.Softmax, st.Averaged, st.Mean = svd.NewMatrix(d, d), svd.NewMatrix(d, d), make([]float64, d)
	w := 1 / float64(b.Tokens())
	longest := b.Longest()
	sensitivity := make([]float64, longest)
	averaged, shifted := make([]float32, longest*d), make([]float32, longest*d)
	received := make([]float64, longest)
	var shift []float32
	for s := range b.Sequences() {
		start, end := b.Starts[s], b.Starts[s+1]
		n := end - start
		x := h[start*d : end*d]
		clear(received)
		p.Probabilities(s, hd, func(lo, hi int, a []float32) {
			serial.Sgemm(false, false, hi-lo, d, hi, 1, a, hi, x, d, 0, averaged[lo*d:], d)
			for m := lo; m < hi; m++ {
				row := a[(m-lo)*hi : (m-lo)*hi+m+1]
				var squares float64
				for j, v := range row {
					v := float64(v)
					received[j] += w * v
					squares += v * v
					sensitivity[m-j] += w * v * (1 - v)
				}
				st.Squared += w * squares
			}
		})
		if shift == nil {
			shift = mean(x, received[:n], d)
		}
		for m := range n {
			row := averaged[m*d : (m+1)*d]
			vec.Axpy(-1, shift, row)
			for j, v := range row {
				st.Mean[j] += w * float64(v)
			}
			root := float32(math.Sqrt(received[m]))
			row = shifted[m*d : (m+1)*d]
			for j, v := range x[m*d : (m+1)*d] {
				row[j] = root * (v - shift[j])
			}
		}
		serial.SsyrkAcc(d, n, w, averaged, d, st.Averaged.Data, d)
		serial.SsyrkAcc(d, n, 1, shifted, d, st.Softmax.Data, d)
	}
	for i, u := range st.Mean {
		for j, v := range st.Mean {
			k := i*d + j
			st.Softmax.Data[k] -= st.Averaged.Data[k]
			st.Averaged.Data[k] -= u * v
		}
	}
	for j, v := range shift {
		st.Mean[j] += float64(v)
	}
	st.Distances = Distances(sensitivity, available(b), context)
}

// mean is the mean of the rows of x [n, d] with the given weights.
func mean(x []float32, weights []float64, d int) []float32 {
	sum, total := make([]float64, d), 0.0
	for t, w := range weights {
		total += w
		for j, v := range x[t*d : (t+1)*d] {
			sum[j] += w * float64(v)
		}
	}
	out := make([]float32, d)
	for j, v := range sum {
		out[j] = float32(v / total)
	}
	return out
}

// queryCovariance is E[q q^T] [dim, dim] over n queries with the given stride.
func queryCovariance(e *blas.Engine, q []float32, n, stride, dim int) svd.Matrix {
	out := svd.NewMatrix(dim, dim)
	e.SsyrkAcc(dim, n, 1/float64(n), q, stride, out.Data, dim)
	return out
}

// available counts, for every distance, the pairs of positions of the batch that are so far apart.
func available(b *model.Batch) []float64 {
	out := make([]float64, b.Longest())
	for s := range b.Sequences() {
		n := b.Starts[s+1] - b.Starts[s]
		for d := range n {
			out[d] += float64(n - d)
		}
	}
	return out
}

// Distances turns the sensitivity summed at each distance into a distribution over 0 .. context-1. Distances that the
// windows offer less often count for more (divided by the number of pairs), those from three quarters of the longest window on,
// of which there are few pairs or none, follow the power law fitted to the middle half of the window, and the result is weighted
// by how often a context of the given length offers each distance.
func Distances(sensitivity, pairs []float64, context int) mla.Weights {
	length := len(sensitivity)
	rate := make([]float64, max(context, 1))
	reliable := min(3*length/4, context)
	for d := range min(length, context) {
		if pairs[d] > 0 {
			rate[d] = sensitivity[d] / pairs[d]
		}
	}
	if reliable > 0 && context > reliable {
		slope, at := powerLaw(rate[:reliable])
		for d := reliable; d < context; d++ {
			rate[d] = at * math.Pow(float64(d)/float64(reliable), slope)
		}
	}
	sum := 0.0
	for d := range rate {
		rate[d] *= float64(context - d)
		sum += rate[d]
	}
	if !(sum > 0) {
		return mla.Weights{1}
	}
	for d := range rate {
		rate[d] /= sum
	}
	return rate
}

// powerLaw fits log rate = c + slope log d by least squares over the upper two thirds of the rates, each point counted
// once a distance, and returns the slope, at most 0, and the fitted rate at len(rate).
func powerLaw(rate []float64) (slope, at float64) {
	var n, sx, sy, sxx, sxy float64
	for d := len(rate) / 3; d < len(rate); d++ {
		if d == 0 || rate[d] <= 0 {
			continue
		}
		x, y := math.Log(float64(d)/float64(len(rate))), math.Log(rate[d])
		n++
		sx += x
		sy += y
		sxx += x * x
		sxy += x * y
	}
	if n == 0 {
		return 0, 0
	}
	if variance := sxx - sx*sx/n; variance > 1e-12 {
		slope = min(0, (sxy-sx*sy/n)/variance)
	}
	return slope, math.Exp((sy - slope*sx) / n)
}

// tokenWeights is 1/mean(x^2) of the residual stream x [tokens, d], scaled to mean 1: single tokens of trained models
// have streams a thousand times longer than the rest, and squared errors would see nothing else. A stream of zeros, as padding
// leaves it, counts for nothing: no error relates to it.
func tokenWeights(x []float32, d int) []float64 {
	n := len(x) / d
	w := make([]float64, n)
	sum := 0.0
	for t := range w {
		if squares := float64(vec.SumSquares(x[t*d : (t+1)*d])); squares != 0 {
			w[t] = float64(d) / math.Max(squares, 1e-30)
			sum += w[t]
		}
	}
	if sum == 0 {
		return w
	}
	for t := range w {
		w[t] *= float64(n) / sum
	}
	return w
}
