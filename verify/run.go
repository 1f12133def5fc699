package verify

import (
	"context"
	"errors"
	"fmt"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/report"
	"github.com/mlaconvert/mlaconvert/internal/ui"
)

// Result is what a verification found.
type Result = report.Verification

// Progress is told how far a verification has got. Phases follow one another; Done counts up within one.
type Progress interface {
	Phase(name string, total int64, unit ui.Unit)
	Done(done int64)
}

// Options says what is compared, and on what.
type Options struct {
	// Source and Target have the same layers, hidden width and vocabulary.
	Source, Target *model.Network
	// Batch holds at least one sequence of two tokens or more.
	Batch model.Batch
	// Data describes the batch; Run fills in its counts.
	Data       report.Data
	Thresholds report.Thresholds
	Engine     *blas.Engine
	// Progress may be nil.
	Progress Progress
}

// limits bound the tokens that are held at once, as [model.Batch.Runs] does.
type limits struct {
	// span is how many tokens pass all layers before the others begin: within a span every weight is read once, and the
	// residual streams of both networks are held.
	span int
	// chunk is how many tokens go through a layer together.
	chunk int
}

// limitsFor keeps both residual streams of a span within 512 MiB, and an activation of a chunk within 16 MiB.
func limitsFor(hidden int) limits {
	const row = 4 // bytes
	return limits{span: max(1, 256<<20/(row*hidden)), chunk: max(1, 16<<20/(row*hidden))}
}

// PoorRatio is the perplexity ratio above which a conversion is called poor.
const PoorRatio = 1.5

// Run compares the two networks. A failed verification is a result, not an error.
//
// The result does not depend on the number of threads.
func Run(ctx context.Context, o Options) (*Result, error) {
	return runWithin(ctx, o, limitsFor(o.Source.Hidden))
}

func runWithin(ctx context.Context, o Options, most limits) (*Result, error) {
	if err := sameShape(o.Source, o.Target); err != nil {
		return nil, err
	}
	r := &run{Options: o, limits: most, layers: make([]layerSums, o.Source.Layers)}
	labels := 0
	for _, label := range next(&o.Batch) {
		if label >= 0 {
			labels++
		}
	}
	if labels == 0 {
		return nil, errors.New("no sequence of two tokens or more, of which the second could be predicted")
	}
	cache, err := r.cache()
	if err != nil {
		return nil, err
	}
	spans := o.Batch.Runs(most.span)
	for i, s := range spans {
		part := o.Batch.Slice(s[0], s[1])
		suffix := ""
		if len(spans) > 1 {
			suffix = fmt.Sprintf(" (part %d of %d)", i+1, len(spans))
		}
		if err := r.span(ctx, &part, suffix); err != nil {
			return nil, err
		}
		if r.failure != "" {
			break
		}
	}
	return r.result(cache), nil
}

// sameShape reports the first dimension that two networks must share and do not.
func sameShape(source, target *model.Network) error {
	for _, d := range []struct {
		name           string
		source, target int
	}{
		{"layers", source.Layers, target.Layers},
		{"hidden width", source.Hidden, target.Hidden},
		{"vocabulary", source.Vocab, target.Vocab},
	} {
		if d.source != d.target {
			return fmt.Errorf("%s: %s %d, expected %d as in the source %s", target.Dir, d.name, d.target, d.source, source.Dir)
		}
	}
	return nil
}

// next returns the label of every token: the id that follows it in its sequence, or -1 after the last.
func next(b *model.Batch) []int {
	labels := make([]int, b.Tokens())
	for s := range b.Sequences() {
		lo, hi := b.Starts[s], b.Starts[s+1]
		copy(labels[lo:], b.IDs[lo+1:hi])
		labels[hi-1] = -1
	}
	return labels
}

type run struct {
	Options
	limits limits
	layers []layerSums
	logits logitSums
	// failure names the first thing that was not finite; nothing after it was looked at. failed is its layer, or the
	// number of layers.
	failure string
	failed  int
}

// cache asks the attention of the first layer what it caches.
func (r *run) cache() (report.Cache, error) {
	var floats [2]int
	for i, n := range []*model.Network{r.Source, r.Target} {
		b, err := n.Block(0)
		if err != nil {
			return report.Cache{}, err
		}
		defer b.Close()
		switch a := b.Attention.(type) {
		case *model.GQA:
			floats[i] = a.K.Out + a.V.Out
		case *model.MLA:
			floats[i] = a.Rank + a.RopeDim
		default:
			return report.Cache{}, fmt.Errorf("%s: attention of type %T", n.Dir, a)
		}
	}
	return report.Cache{Source: floats[0], Target: floats[1], Ratio: float64(floats[1]) / float64(floats[0])}, nil
}

// span takes some sequences through all layers and the heads.
func (r *run) span(ctx context.Context, b *model.Batch, suffix string) error {
	source, err := r.Source.Embed(b)
	if err != nil {
		return err
	}
	target, err := r.Target.Embed(b)
	if err != nil {
		return err
	}
	chunks := b.Runs(r.limits.chunk)
	r.phase("comparing layers"+suffix, len(r.layers)*len(chunks), "steps")
	for layer := range r.layers {
		if err := r.layer(ctx, layer, b, chunks, source, target); err != nil || r.failure != "" {
			return err
		}
	}
	r.phase("comparing logits"+suffix, b.Tokens(), "tokens")
	return r.compareLogits(ctx, b, source, target)
}

// layer takes all chunks through one layer.
func (r *run) layer(ctx context.Context, layer int, b *model.Batch, chunks [][2]int, source, target []float32) error {
	sb, err := r.Source.Block(layer)
	if err != nil {
		return err
	}
	defer sb.Close()
	tb, err := r.Target.Block(layer)
	if err != nil {
		return err
	}
	defer tb.Close()
	d := r.Source.Hidden
	for i, c := range chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := b.Slice(c[0], c[1])
		lo := b.Starts[c[0]] * d
		hi := lo + part.Tokens()*d
		if what := r.layers[layer].add(r.Engine, &part, sb, tb, source[lo:hi], target[lo:hi]); what != "" {
			r.failure, r.failed = fmt.Sprintf("layer %d: %s is not finite", layer, what), layer
			return nil
		}
		r.done(layer*len(chunks) + i + 1)
	}
	return nil
}

func (r *run) phase(name string, total int, unit ui.Unit) {
	if r.Progress != nil {
		r.Progress.Phase(name, int64(total), unit)
	}
}

func (r *run) done(n int) {
	if r.Progress != nil {
		r.Progress.Done(int64(n))
	}
}

// result turns the sums into figures and judges them.
func (r *run) result(cache report.Cache) *Result {
	out := &Result{
		Schema: report.VerificationSchema, Source: r.Source.Dir, Target: r.Target.Dir, Cache: cache,
		Data: r.Data, Tokens: r.Batch.Tokens(), Thresholds: r.Thresholds,
	}
	out.Data.Sequences, out.Data.Context = r.Batch.Sequences(), r.Batch.Longest()
	for i := range r.layers {
		if r.failure == "" || i <= r.failed {
			out.Layers = append(out.Layers, r.layers[i].figures(i))
		}
	}
	out.Logits, out.Perplexity = r.logits.figures(r.failure != "")
	judge(out, r.failure)
	return out
}

// judge sets Passed, Failures and Warnings by the figures; failure is one that is known already.
func judge(v *Result, failure string) {
	fail := func(format string, args ...any) { v.Failures = append(v.Failures, fmt.Sprintf(format, args...)) }
	defer func() { v.Passed = len(v.Failures) == 0 }()
	if failure != "" {
		fail("%s", failure)
		return
	}
	for _, l := range v.Layers {
		if !l.AttentionError.Finite() || !l.NormError.Finite() || !l.StreamError.Finite() {
			fail("layer %d: an error relative to zero, or one that is not finite", l.Layer)
			return
		}
	}
	kl, increase := float64(v.Logits.KLMean), 100*(float64(v.Perplexity.Ratio)-1)
	if p := &v.Perplexity; !p.Source.Finite() || !p.Target.Finite() || !p.Ratio.Finite() {
		fail("the perplexity is not finite")
		return
	}
	if most := v.Thresholds.MaxKL; most != nil && kl > *most {
		fail("mean KL %.4g nats, at most %.4g allowed", kl, *most)
	}
	if most := v.Thresholds.MaxPerplexityIncrease; most != nil && increase > *most {
		fail("perplexity increased by %.4g %%, at most %.4g %% allowed", increase, *most)
	}
	if v.Perplexity.Ratio > PoorRatio {
		v.Warnings = append(v.Warnings, fmt.Sprintf("the converted model is poor: its perplexity is %.4g times the source's", float64(v.Perplexity.Ratio)))
	}
}
