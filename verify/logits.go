package verify

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/report"
	"github.com/mlaconvert/mlaconvert/internal/vec"
)

// logitSums holds every token's divergence and the sums of the others' figures.
type logitSums struct {
	kl             []float64
	agree, labels  int
	source, target float64 // sums of -log p(next token)
}

// tokenLogits is what one position says.
type tokenLogits struct {
	kl             float64
	source, target float64 // -log p of the label, 0 without one
	agree          bool
	sourceFinite   bool
	targetFinite   bool
}

// logitStep is how many tokens' logits are asked for at once.
const logitStep = 256

// compareLogits compares the networks' distributions over the vocabulary at every position of a batch, from the residual
// streams after the last layer.
func (r *run) compareLogits(ctx context.Context, b *model.Batch, source, target []float32) error {
	d, vocab, labels := r.Source.Hidden, r.Source.Vocab, next(b)
	scratch := sync.Pool{New: func() any {
		s := make([]float32, vocab)
		return &s
	}}
	for from := 0; from < b.Tokens() && r.failure == ""; from += logitStep {
		if err := ctx.Err(); err != nil {
			return err
		}
		rows := min(logitStep, b.Tokens()-from)
		r.Source.Logits(r.Engine, rows, source[from*d:], func(lo, m int, sl []float32) {
			first := from + lo
			r.Target.Logits(r.Engine, m, target[first*d:], func(lo, m int, tl []float32) {
				first, sl := first+lo, sl[lo*vocab:]
				tokens := make([]tokenLogits, m)
				r.Engine.For(m, func(i int) {
					buf := scratch.Get().(*[]float32)
					defer scratch.Put(buf)
					tokens[i] = compareRow(sl[i*vocab:(i+1)*vocab], tl[i*vocab:(i+1)*vocab], *buf, labels[first+i])
				})
				for i := range tokens {
					r.addToken(&tokens[i], labels[first+i] >= 0)
				}
			})
		})
		r.done(from + rows)
	}
	return nil
}

func (r *run) addToken(t *tokenLogits, labelled bool) {
	if r.failure != "" {
		return
	}
	if !t.sourceFinite || !t.targetFinite {
		whose := "target"
		if !t.sourceFinite {
			whose = "source"
		}
		r.failure, r.failed = fmt.Sprintf("the logits of the %s are not finite (token %d)", whose, len(r.logits.kl)), len(r.layers)
		return
	}
	s := &r.logits
	s.kl = append(s.kl, t.kl)
	if t.agree {
		s.agree++
	}
	if labelled {
		s.labels++
		s.source += t.source
		s.target += t.target
	}
}

// compareRow compares the logits s of the source and t of the target at one position whose next token is label, or -1.
// It overwrites s, t and diff, all [vocab].
//
// With Z = sum exp(s - max s) and Z' likewise, KL(p || p') = sum p (s-t) + log Z' + max t - log Z - max s. The exponentials
// are float32, their sums float64.
func compareRow(s, t, diff []float32, label int) tokenLogits {
	ms, mt := vec.Max(s), vec.Max(t)
	out := tokenLogits{agree: t[max(0, slices.Index(s, ms))] == mt}
	var ls, lt float64
	if label >= 0 {
		ls, lt = float64(s[label])-float64(ms), float64(t[label])-float64(mt)
	}
	for i, v := range s {
		// The difference of the maxima is taken off here, where it costs no digits.
		diff[i] = (v - ms) - (t[i] - mt)
	}
	vec.ExpSum(s, s, ms)
	vec.ExpSum(t, t, mt)
	zs, zt := sum(s), sum(t)
	logZs, logZt := math.Log(zs), math.Log(zt)
	// A divergence is not negative; rounding can make it so. The builtin max keeps NaN.
	out.kl = max(0, vec.DotF64(s, diff)/zs+logZt-logZs)
	out.sourceFinite, out.targetFinite = finite(logZs), finite(logZt) && finite(out.kl)
	if label >= 0 {
		out.source, out.target = logZs-ls, logZt-lt
	}
	return out
}

// sum adds float32 values in float64, in four chains, as one would wait for itself.
func sum(x []float32) float64 {
	var a, b, c, d float64
	i := 0
	for ; i+4 <= len(x); i += 4 {
		a += float64(x[i])
		b += float64(x[i+1])
		c += float64(x[i+2])
		d += float64(x[i+3])
	}
	for ; i < len(x); i++ {
		a += float64(x[i])
	}
	return (a + b) + (c + d)
}

// figures turns the sums into what is reported; without is set where the logits were not reached or are not finite.
func (s *logitSums) figures(without bool) (report.Logits, report.Perplexity) {
	if without {
		nan := report.Number(math.NaN())
		return report.Logits{KLMean: nan, KLP99: nan, Top1: nan}, report.Perplexity{Source: nan, Target: nan, Ratio: nan}
	}
	n := float64(len(s.kl))
	total := 0.0
	for _, v := range s.kl {
		total += v
	}
	labels := float64(s.labels)
	return report.Logits{
			KLMean: report.Number(total / n), KLP99: report.Number(percentile(s.kl, 99)), Top1: report.Number(float64(s.agree) / n),
		}, report.Perplexity{
			Source: report.Number(math.Exp(s.source / labels)), Target: report.Number(math.Exp(s.target / labels)),
			Ratio: report.Number(math.Exp((s.target - s.source) / labels)),
		}
}

// percentile returns the smallest value that at least p percent of all values do not exceed (nearest rank). It sorts
// values.
func percentile(values []float64, p int) float64 {
	slices.Sort(values)
	return values[(len(values)*p+99)/100-1]
}
