package calibrate

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/vec"
)

// nothingLost is a divergence, in nats, that rounding could be the cause of: steps would only walk at random.
const nothingLost = 1e-7

// softness is the divergence of a token, in nats, from which on it counts less and less in the descent: gradients are
// noise from few tokens otherwise. On SmolLM2-135M 20 steps with it lowered the held-out divergence, which counts all
// tokens in full, from 0.2125 to 0.2018, without it to 0.2061.
const softness = 0.5

const (
	// TrialSteps is how many steps a rate is on trial: one that has not lowered the held-out divergence then is divided by
	// slowdown, and the steps count anew. What serves a small model makes a real one worse.
	TrialSteps = 8
	slowdown   = 3
	// leastRate is the share of the first rate below which there is nothing to gain.
	leastRate = 1e-3
	// tooFar is how much above the least divergence seen so far makes the correction go back to it, and on more slowly; so
	// does missing it twice.
	tooFar = 1.02
)

// distill corrects all layers together by gradient descent on the Kullback-Leibler divergence of the converted
// network's next-token distributions from the source's (Hinton et al. 2015), on the same tokens. Only the attention's
// weights move. The state with the least held-out divergence stays. Of both streams only the source's, behind the last
// layer, is used.
func distill(ctx context.Context, e *blas.Engine, net *model.Network, layers []*model.MLA, train, hold *streams, o Options) error {
	t := &distiller{engine: e, net: net, layers: layers, matching: o.Distill.Matching}
	for _, a := range layers {
		g := model.NewMLAGradient(a)
		t.grads = append(t.grads, g)
		t.optimizers = append(t.optimizers, newAdam(a, g))
	}
	for layer := range layers {
		b, err := net.Block(layer)
		if err != nil {
			return err
		}
		defer b.Close()
		t.blocks = append(t.blocks, b)
	}
	best, err := t.divergence(hold, 0)
	if err != nil {
		return err
	}
	tell := func(name string, step int, figure float64) {
		if o.Progress != nil {
			o.Progress(Step{Name: name, Done: step, Total: o.Distill.Steps, Figure: figure})
		}
	}
	tell("held-out", 0, best)
	if best < nothingLost {
		return nil
	}
	kept := cloneAll(layers)
	t.train, t.random = train, rand.New(rand.NewPCG(o.Seed, 1<<33))
	d := o.Distill
	rate, proven, missed := d.Rate, false, false
	back := func() {
		rate /= slowdown
		for i, a := range layers {
			a.CopyWeights(kept[i])
			t.optimizers[i].reset()
		}
	}
	for step := 0; step < d.Steps && rate > d.Rate*leastRate; {
		if err := ctx.Err(); err != nil {
			return err
		}
		loss, err := t.step(d.Sequences, rate*schedule(step, d.Steps))
		if err != nil {
			return err
		}
		step++
		tell("distill", step, loss)
		if step%CheckEvery != 0 && step != d.Steps && (proven || step != TrialSteps) {
			continue
		}
		kl, err := t.divergence(hold, 0)
		if err != nil {
			return err
		}
		tell("held-out", step, kl)
		switch {
		case kl < best:
			best, kept, proven, missed = kl, cloneAll(layers), true, false
		case !proven:
			back()
			step = 0
		case missed || kl > tooFar*best:
			back()
			missed = false
		default:
			missed = true
		}
	}
	copy(layers, kept)
	return nil
}

// step moves all layers along the gradient of some sequences and returns their divergence.
func (t *distiller) step(sequences int, rate float64) (float64, error) {
	var part []int
	tokens := 0
	for range sequences {
		if len(t.order) == 0 {
			t.order = t.random.Perm(t.train.batch.Sequences())
		}
		i := t.order[0]
		part, t.order = append(part, i), t.order[1:]
		tokens += t.train.batch.Starts[i+1] - t.train.batch.Starts[i]
	}
	// One sequence after the other: its states are all that is held.
	loss := 0.0
	for _, i := range part {
		b, want := t.train.sequence(i, t.net.Hidden)
		l, err := t.backward(b, want, 1/float32(tokens))
		if err != nil {
			return 0, err
		}
		loss += l / float64(tokens)
	}
	for _, opt := range t.optimizers {
		opt.step(t.engine, rate)
	}
	return loss, nil
}

// sequence is one sequence and the source's stream over it.
func (s *streams) sequence(i, d int) (model.Batch, []float32) {
	lo, hi := s.batch.Starts[i], s.batch.Starts[i+1]
	return s.batch.Slice(i, i+1), s.source[lo*d : hi*d]
}

func cloneAll(layers []*model.MLA) []*model.MLA {
	out := make([]*model.MLA, len(layers))
	for i, a := range layers {
		out[i] = a.Clone()
	}
	return out
}

type distiller struct {
	engine     *blas.Engine
	net        *model.Network
	blocks     []*model.Block
	layers     []*model.MLA
	grads      []*model.MLAGradient
	optimizers []*adam
	matching   float64
	train      *streams
	random     *rand.Rand
	order      []int // sequences that this pass over the training tokens has still to come to
}

// forward is the converted network's residual stream behind the last layer.
func (t *distiller) forward(b *model.Batch) ([]float32, error) {
	x, err := t.net.Embed(b)
	if err != nil {
		return nil, err
	}
	for i, block := range t.blocks {
		converted := *block
		converted.Attention = t.layers[i]
		converted.Forward(t.engine, b, x)
	}
	return x, nil
}

// divergence is the mean divergence over the tokens, in nats, softened as [model.Network.Divergence] does.
func (t *distiller) divergence(s *streams, soft float64) (float64, error) {
	sum := 0.0
	for i := range s.batch.Sequences() {
		b, want := s.sequence(i, t.net.Hidden)
		got, err := t.forward(&b)
		if err != nil {
			return 0, err
		}
		sum += t.net.Divergence(t.engine, b.Tokens(), want, got, soft, nil)
	}
	return sum / float64(s.batch.Tokens()), nil
}

// passes is what one layer's way back needs of its way forward.
type passes struct {
	x         []float32 // the residual stream before the layer
	attention *model.Pass
	mlp       *model.MLPPass
	// pull is the derivative of the layer's matching loss by the residual stream behind it.
	pull []float32
}

// match returns weight times the sum over tokens of |x - want|^2 / |want|^2, x and want [tokens, d], and its derivative by x.
func match(e *blas.Engine, x, want []float32, d int, weight float64) (float64, []float32) {
	n := len(x) / d
	pull := make([]float32, len(x))
	losses := make([]float64, n)
	e.For(n, func(t int) {
		got, to, out := x[t*d:(t+1)*d], want[t*d:(t+1)*d], pull[t*d:(t+1)*d]
		w := weight / math.Max(float64(vec.SumSquares(to)), 1e-30)
		copy(out, got)
		vec.Axpy(-1, to, out)
		losses[t] = w * float64(vec.SumSquares(out))
		vec.Scale(float32(2*w), out)
	})
	sum := 0.0
	for _, l := range losses {
		sum += l
	}
	return sum, pull
}

// backward adds share times the gradient of one sequence's summed softened divergence to the layers' gradients and returns
// that sum. want is the source's stream behind the last layer.
func (t *distiller) backward(b model.Batch, want []float32, share float32) (float64, error) {
	e, n := t.engine, b.Tokens()
	x, err := t.net.Embed(&b)
	if err != nil {
		return 0, err
	}
	kept := make([]passes, len(t.blocks))
	y := make([]float32, len(x))
	source := append([]float32(nil), x...)
	matching := 0.0
	for i, block := range t.blocks {
		h := make([]float32, len(x))
		p := &kept[i]
		p.x = append([]float32(nil), x...)
		model.RMSNorm(e, n, x, block.AttnNorm, block.Eps, h)
		p.attention = t.layers[i].Begin(e, &b, h)
		p.attention.Output(y)
		model.Add(e, x, y)
		p.mlp = block.BeginMLP(e, n, x)
		if t.matching > 0 {
			block.Forward(e, &b, source)
			var l float64
			l, p.pull = match(e, x, source, len(x)/n, t.matching/float64(len(t.blocks)))
			matching += l
		}
	}
	dx := make([]float32, len(x))
	loss := t.net.Divergence(e, n, want, x, softness, dx)
	loss += matching
	if math.IsNaN(loss) {
		return 0, errNotFinite
	}
	vec.Scale(share, dx)
	dh := y
	for i := len(t.blocks) - 1; i >= 0; i-- {
		block, p := t.blocks[i], &kept[i]
		if p.pull != nil {
			vec.Axpy(share, p.pull, dx)
		}
		p.mlp.Backward(e, dx)
		p.attention.Backward(dx, t.grads[i], dh)
		model.RMSNormBackward(e, n, p.x, block.AttnNorm, block.Eps, dh, dx)
		*p = passes{}
	}
	return loss, nil
}

var errNotFinite = errors.New("the converted network's divergence from the source is not finite")
