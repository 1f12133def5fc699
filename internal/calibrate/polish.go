package calibrate

import (
	"context"
	"math/rand/v2"

	"github.com/mlaconvert/mlaconvert/internal/model"
)

// CheckEvery is how many steps lie between two looks at the held-out tokens.
const CheckEvery = 20

// polish improves all weights of a layer by gradient descent on the weighted squared error against the target, and
// returns the state with the least held-out error that was seen.
func (r *run) polish(ctx context.Context, a *model.MLA, layer int, train, hold *layerData, report *LayerReport) (*model.MLA, error) {
	o := r.options.Polish
	best := a
	now := a.Clone()
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
		opt.step(r.engine, o.Rate*schedule(step, o.Steps))
		if (step+1)%CheckEvery == 0 || step == o.Steps-1 {
			now.Forward(r.engine, hold.batch, hold.convertedIn, y)
			if err := relativeError(y, hold.target, hold.weights); err < report.Polish {
				report.Polish = err
				best = now.Clone()
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
