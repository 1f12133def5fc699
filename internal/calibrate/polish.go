package calibrate

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/model"
)

// CheckEvery is how many steps lie between two looks at the held-out tokens.
const CheckEvery = 20

const (
	// PolishTrials is how many layers, the first ones, are polished at each of PolishRates rates; the others are at the one
	// that served them best.
	PolishTrials = 2
	PolishRates  = 3
)

// polish improves all weights of a layer by gradient descent on the weighted squared error against the target, and
// returns the state with the least drift of the held-out residual stream behind the layer's MLP that was seen. (A single
// token that the MLP of a real model makes a massive activation of by mistake ruins what a smaller error of the attention
// has gained.)
func (r *run) polish(ctx context.Context, block *model.Block, a *model.MLA, layer int, train, hold *layerData, report *LayerReport) (*model.MLA, error) {
	source := append([]float32(nil), r.hold.source...)
	model.Add(r.engine, source, hold.output)
	block.ForwardMLP(r.engine, hold.batch.Tokens(), source)
	weights := tokenWeights(source, block.Hidden)
	behind := func(output []float32) float64 {
		x := append([]float32(nil), r.hold.converted...)
		model.Add(r.engine, x, output)
		block.ForwardMLP(r.engine, hold.batch.Tokens(), x)
		return relativeError(x, source, weights)
	}
	start := behind(hold.converted)
	if start == 0 {
		return a, nil // nothing to gain, or to compare rates by
	}
	rates := r.polishRates
	if rates == nil {
		rate := r.options.Polish.Rate
		for range PolishRates {
			rates = append(rates, rate)
			rate /= slowdown
		}
		r.polishRates, r.polishGains = rates, make([]float64, len(rates))
	}
	best := &polished{attention: a, error: report.Refit, drift: start}
	for i, rate := range rates {
		now, err := r.polishAt(ctx, rate, a, layer, train, hold, behind)
		if err != nil {
			return nil, err
		}
		if layer < PolishTrials {
			r.polishGains[i] += math.Log(min(now.drift, start) / start)
		}
		if now.drift < best.drift {
			best = now
		}
	}
	report.Polish = best.error
	if layer == PolishTrials-1 {
		least := slices.Index(r.polishGains, slices.Min(r.polishGains))
		r.polishRates = rates[least : least+1]
	}
	return best.attention, nil
}

// polished is a state of a layer: the held-out error of its attention, and the drift behind its MLP.
type polished struct {
	attention    *model.MLA
	error, drift float64
}

// polishAt is the state with the least drift on the way down from a at one rate; behind tells the drift that an attention
// output leads to.
func (r *run) polishAt(ctx context.Context, rate float64, a *model.MLA, layer int, train, hold *layerData, behind func([]float32) float64) (*polished, error) {
	o := r.options.Polish
	now := a.Clone()
	best := &polished{drift: math.Inf(1)}
	grad := model.NewMLAGradient(now)
	opt := newAdam(now, grad)
	random := rand.New(rand.NewPCG(r.options.Seed, uint64(layer)+1<<32))
	d := a.O.Out
	y := make([]float32, len(hold.target))
	for step := range o.Steps {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		part := pick(random, train, o.Sequences, d)
		pass := now.Begin(r.engine, &part.batch, part.input)
		dy := make([]float32, len(part.target))
		pass.Output(dy)
		lossGradient(dy, part.target, part.weights)
		pass.Backward(dy, grad, nil)
		opt.step(r.engine, rate*schedule(step, o.Steps))
		if (step+1)%CheckEvery == 0 || step == o.Steps-1 {
			now.Forward(r.engine, hold.batch, hold.convertedIn, y)
			if drift := behind(y); drift < best.drift {
				best = &polished{now.Clone(), relativeError(y, hold.target, hold.weights), drift}
			}
		}
	}
	return best, nil
}

// lossGradient replaces y by the derivative of sum w |y - target|^2 / (2 sum w).
func lossGradient(y, target []float32, weights []float64) {
	d := len(target) / len(weights)
	total := 0.0
	for _, w := range weights {
		total += w
	}
	for t, w := range weights {
		f := float32(w / total)
		for i := t * d; i < (t+1)*d; i++ {
			y[i] = f * (y[i] - target[i])
		}
	}
}

// picked is some sequences of a layer's data.
type picked struct {
	batch         model.Batch
	input, target []float32
	weights       []float64
}

// pick gathers sequences drawn without replacement.
func pick(random *rand.Rand, t *layerData, sequences, d int) *picked {
	p := &picked{batch: model.Batch{Starts: []int{0}}}
	for _, s := range random.Perm(t.batch.Sequences())[:min(sequences, t.batch.Sequences())] {
		lo, hi := t.batch.Starts[s], t.batch.Starts[s+1]
		p.batch.IDs = append(p.batch.IDs, t.batch.IDs[lo:hi]...)
		p.batch.Starts = append(p.batch.Starts, len(p.batch.IDs))
		p.input = append(p.input, t.convertedIn[lo*d:hi*d]...)
		p.target = append(p.target, t.target[lo*d:hi*d]...)
		p.weights = append(p.weights, t.weights[lo:hi]...)
	}
	return p
}
