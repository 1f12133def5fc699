package verify

import (
	"math"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/report"
)

// layerSums accumulates the errors of one layer over tokens, in float64. w is the weight of a token, 1/mean(x^2) of the
// source's residual stream x after the attention (v after the MLP), or 0 where that is zero.
type layerSums struct {
	diff, size   float64 // sum w |y'-y|^2 and sum w |y|^2, y the attention output
	drift, total float64 // sum v |x'-x|^2 and sum v |x|^2, x the residual stream after the layer
	norm         factorSums
}

// add takes one chunk through both networks' layer, in place: source and target are their residual streams [tokens,
// hidden]. It returns what was found not to be finite, or "".
func (s *layerSums) add(e *blas.Engine, b *model.Batch, sb, tb *model.Block, source, target []float32) string {
	n, d := b.Tokens(), sb.Hidden
	h := make([]float32, n*d)
	want := make([]float32, n*d)
	got := make([]float32, n*d)
	model.RMSNorm(e, n, source, sb.AttnNorm, sb.Eps, h)
	sb.Attention.Forward(e, b, h, want)
	model.RMSNorm(e, n, source, tb.AttnNorm, tb.Eps, h)
	tb.Attention.Forward(e, b, h, got)
	model.Add(e, source, want)

	t := compare(e, n, d, want, got, source)
	s.diff += t.weighted(t.diff)
	s.size += t.weighted(t.size)
	if a, ok := tb.Attention.(*model.MLA); ok && a.LatentNorm != nil {
		s.norm.add(a.LatentFactors(e, n, h), t.weight)
	}
	if !allFinite(t.size) {
		return "the source's attention output"
	}
	if !allFinite(t.diff) {
		return "the target's attention output"
	}

	sb.ForwardMLP(e, n, source)
	tb.Forward(e, b, target)
	t = compare(e, n, d, source, target, source)
	s.drift += t.weighted(t.diff)
	s.total += t.weighted(t.size)
	if !allFinite(t.size) {
		return "the source's residual stream"
	}
	if !allFinite(t.diff) {
		return "the target's residual stream"
	}
	return ""
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// allFinite looks at the errors without their weights: the weight of an infinite activation is zero, which hides it. The
// squares of finite float32 values do not overflow in float64.
func allFinite(x []float64) bool {
	for _, v := range x {
		if !finite(v) {
			return false
		}
	}
	return true
}

// tokenErrors are |got-want|^2, |want|^2 and the weight of each token.
type tokenErrors struct{ diff, size, weight []float64 }

// compare compares rows of want and got, [n, d], weighted by 1/mean(x^2) of the rows of x.
func compare(e *blas.Engine, n, d int, want, got, x []float32) *tokenErrors {
	t := &tokenErrors{make([]float64, n), make([]float64, n), make([]float64, n)}
	const rows = 64
	e.For((n+rows-1)/rows, func(task int) {
		for i := task * rows; i < min(n, (task+1)*rows); i++ {
			var diff, size, stream float64
			wi, gi, xi := want[i*d:(i+1)*d], got[i*d:(i+1)*d], x[i*d:(i+1)*d]
			for j, w := range wi {
				a, c := float64(w), float64(xi[j])
				delta := float64(gi[j]) - a
				diff += delta * delta
				size += a * a
				stream += c * c
			}
			t.diff[i], t.size[i] = diff, size
			// A stream of zeros stays unmeasured: nothing relates to it.
			if stream != 0 {
				t.weight[i] = float64(d) / stream
			}
		}
	})
	return t
}

// weighted sums in the order of the tokens, so that the sum does not depend on the number of threads.
func (t *tokenErrors) weighted(values []float64) float64 {
	sum := 0.0
	for i, v := range values {
		if t.weight[i] != 0 {
			sum += t.weight[i] * v
		}
	}
	return sum
}

// factorSums accumulates weighted moments of f/first - 1, first being the first factor that counts: the norm's factors can
// differ in the seventh digit only, and that of a latent of zeros by many orders.
type factorSums struct{ first, weight, sum, squares float64 }

func (s *factorSums) add(factors, weights []float64) {
	for i, f := range factors {
		if weights[i] == 0 {
			continue
		}
		if s.first == 0 {
			s.first = f
		}
		x := f/s.first - 1
		s.weight += weights[i]
		s.sum += weights[i] * x
		s.squares += weights[i] * x * x
	}
}

// fluctuation is the standard deviation of the factors over their mean.
func (s *factorSums) fluctuation() float64 {
	if s.weight == 0 {
		return 0
	}
	mean := s.sum / s.weight
	return math.Sqrt(max(0, s.squares/s.weight-mean*mean)) / (1 + mean)
}

func (s *layerSums) figures(layer int) report.Layer {
	return report.Layer{
		Layer:          layer,
		AttentionError: relative(s.diff, s.size),
		NormError:      report.Number(s.norm.fluctuation()),
		StreamError:    relative(s.drift, s.total),
	}
}

// relative is sqrt(diff/size); without anything to relate to, it is 0 if there is no difference and NaN otherwise.
func relative(diff, size float64) report.Number {
	if diff == 0 {
		return 0
	}
	if size == 0 {
		return report.Number(math.NaN())
	}
	return report.Number(math.Sqrt(diff / size))
}
