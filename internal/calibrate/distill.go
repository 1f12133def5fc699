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

// distill corrects all layers together by gradient descent on the Kullback-Leibler divergence of the converted
// network's next-token distributions from the source's (Hinton et al. 2015), on the same tokens. Only the attention's
// weights move. Where the held-out divergence does not fall the steps are taken back and the rate is lowered; the state
// with the least divergence stays. Of both streams only the source's, behind the last layer, is used.
func distill(ctx context.Context, e *blas.Engine, net *model.Network, layers []*model.MLA, train, hold *streams, o Options) error {
	t := &distiller{engine: e, net: net, layers: layers}
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
	best, err := t.divergence(hold)
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
	random := rand.New(rand.NewPCG(o.Seed, 1<<33))
	var order []int
	d := o.Distill
	rate := d.Rate
	for step := range d.Steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		var part []int
		for range d.Sequences {
			if len(order) == 0 {
				order = random.Perm(train.batch.Sequences())
			}
			part = append(part, order[0])
			order = order[1:]
		}
		tokens := 0
		for _, i := range part {
			tokens += train.batch.Starts[i+1] - train.batch.Starts[i]
		}
		// One sequence after the other: its states are all that is held.
		loss := 0.0
		for _, i := range part {
			b, want := train.sequence(i, net.Hidden)
			l, err := t.backward(b, want, 1/float32(tokens))
			if err != nil {
				return err
			}
			loss += l / float64(tokens)
		}
		for _, opt := range t.optimizers {
			opt.step(e, rate*schedule(step, d.Steps))
		}
		tell("distill", step+1, loss)
		if (step+1)%CheckEvery == 0 || step == d.Steps-1 {
			kl, err := t.divergence(hold)
			if err != nil {
				return err
			}
			tell("held-out", step+1, kl)
			if kl < best {
				best, kept = kl, cloneAll(layers)
				continue
			}
			// Too fast for this model (what serves a small one makes a real one worse): back to the best state, slower.
			rate /= 3
			for i, a := range layers {
				a.CopyWeights(kept[i])
				t.optimizers[i].reset()
			}
		}
	}
	copy(layers, kept)
	return nil
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
}

// forward is the converted network's residual stream behind the last layer.
func (t *distiller) forward(b *model.Batch) ([]float32, error) {
	x, err := t.net.Embed(b)
	if err != nil {
		return nil, err
	}
	n := b.Tokens()
	h, y := make([]float32, len(x)), make([]float32, len(x))
	for i, block := range t.blocks {
		model.RMSNorm(t.engine, n, x, block.AttnNorm, block.Eps, h)
		t.layers[i].Forward(t.engine, b, h, y)
		model.Add(t.engine, x, y)
		block.ForwardMLP(t.engine, n, x)
	}
	return x, nil
}

// divergence is the mean divergence over the tokens, in nats.
func (t *distiller) divergence(s *streams) (float64, error) {
	sum := 0.0
	for i := range s.batch.Sequences() {
		b, want := s.sequence(i, t.net.Hidden)
		got, err := t.forward(&b)
		if err != nil {
			return 0, err
		}
		sum += t.net.Divergence(t.engine, b.Tokens(), want, got, nil)
	}
	return sum / float64(s.batch.Tokens()), nil
}

// kept is what one layer's way back needs of its way forward.
type kept struct {
	x         []float32 // the residual stream before the layer
	attention *model.Pass
	mlp       *model.MLPPass
}

// backward adds share times the gradient of one sequence's summed divergence to the layers' gradients and returns the
// divergence. want is the source's stream behind the last layer.
func (t *distiller) backward(b model.Batch, want []float32, share float32) (float64, error) {
	e, n := t.engine, b.Tokens()
	x, err := t.net.Embed(&b)
	if err != nil {
		return 0, err
	}
	passes := make([]kept, len(t.blocks))
	y := make([]float32, len(x))
	for i, block := range t.blocks {
		h := make([]float32, len(x))
		p := &passes[i]
		p.x = append([]float32(nil), x...)
		model.RMSNorm(e, n, x, block.AttnNorm, block.Eps, h)
		p.attention = t.layers[i].Begin(e, &b, h)
		p.attention.Output(y)
		model.Add(e, x, y)
		p.mlp = block.BeginMLP(e, n, x)
	}
	dx := make([]float32, len(x))
	loss := t.net.Divergence(e, n, want, x, dx)
	if math.IsNaN(loss) {
		return 0, errNotFinite
	}
	vec.Scale(share, dx)
	dh := y
	for i := len(t.blocks) - 1; i >= 0; i-- {
		block, p := t.blocks[i], &passes[i]
		p.mlp.Backward(e, dx)
		p.attention.Backward(dx, t.grads[i], dh)
		model.RMSNormBackward(e, n, p.x, block.AttnNorm, block.Eps, dh, dx)
		*p = kept{}
	}
	return loss, nil
}

var errNotFinite = errors.New("the converted network's divergence from the source is not finite")
