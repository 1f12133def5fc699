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

// nothingLost is a loss that rounding could be the cause of: steps would only walk at random.
const nothingLost = 1e-7

// softness is the divergence of a token, in nats, from which on it counts less and less in the descent: gradients are
// noise from few tokens otherwise. On SmolLM2-135M 20 steps with it lowered the held-out divergence, which counts all
// tokens in full, from 0.2125 to 0.2018, without it to 0.2061.
const softness = 0.5

const (
	// CheckEvery is how many steps lie between two looks at the held-out tokens.
	CheckEvery = 20
	// TrialSteps is how many steps a rate is on trial: one that has not lowered the held-out loss then is divided by
	// slowdown, and the steps count anew. What serves a small model makes a real one worse.
	TrialSteps = 8
	slowdown   = 3
	// leastRate is the share of the first rate below which there is nothing to gain.
	leastRate = 1e-3
	// tooFar is how much above the least loss seen so far makes the descent go back to it, and on more slowly; so does
	// missing it twice.
	tooFar = 1.02
)

// descent moves the attention weights of consecutive layers down the gradient of a loss, one sequence after the other: the
// drift of the residual stream behind each of them, and, where they end at the logits, the Kullback-Leibler divergence of
// the next-token distributions from the source's (Hinton et al. 2015).
type descent struct {
	engine     *blas.Engine
	net        *model.Network
	blocks     []*model.Block // of the source
	layers     []*model.MLA
	grads      []*model.MLAGradient
	optimizers []*adam
	// matching is the weight of the mean over layers of |x - x_source|^2 / |x_source|^2.
	matching float64
	// end is the source's residual stream over hold behind the last layer of the network, where the loss counts the
	// divergence; nil where it does not.
	end []float32
	// train and hold are the tokens, with both networks' streams before the first of the layers.
	train, hold *streams
	random      *rand.Rand
	order       []int // sequences that this pass over the training tokens has still to come to
	// tell hears of every step's loss, and of every look at the held-out tokens.
	tell func(heldOut bool, step int, loss float64)
}

// newDescent prepares the layers that begin with number first. Close it after use.
func newDescent(e *blas.Engine, net *model.Network, first int, layers []*model.MLA, train, hold *streams) (*descent, error) {
	t := &descent{engine: e, net: net, layers: layers, train: train, hold: hold}
	for i, a := range layers {
		b, err := net.Block(first + i)
		if err != nil {
			t.close()
			return nil, err
		}
		g := model.NewMLAGradient(a)
		t.blocks, t.grads, t.optimizers = append(t.blocks, b), append(t.grads, g), append(t.optimizers, newAdam(a, g))
	}
	return t, nil
}

func (t *descent) close() {
	for _, b := range t.blocks {
		b.Close()
	}
}

// run goes down and leaves the layers in the state with the least held-out loss that it has seen.
func (t *descent) run(ctx context.Context, o Descent, seed uint64) error {
	best, err := t.heldOut()
	if err != nil {
		return err
	}
	if math.IsNaN(best) || math.IsInf(best, 0) {
		return errNotFinite
	}
	t.tell(true, 0, best)
	if best < nothingLost {
		return nil
	}
	kept := cloneAll(t.layers)
	t.random, t.order = rand.New(rand.NewPCG(seed, 1<<33)), nil
	rate, proven, missed := o.Rate, false, false
	back := func() {
		rate /= slowdown
		for i, a := range t.layers {
			a.CopyWeights(kept[i])
			t.optimizers[i].reset()
		}
	}
	for step := 0; step < o.Steps && rate > o.Rate*leastRate; {
		if err := ctx.Err(); err != nil {
			return err
		}
		loss, err := t.step(o.Sequences, rate*schedule(step, o.Steps))
		if err != nil {
			return err
		}
		step++
		t.tell(false, step, loss)
		finite := !math.IsNaN(loss) && !math.IsInf(loss, 0)
		if finite && step%CheckEvery != 0 && step != o.Steps && (proven || step != TrialSteps) {
			continue
		}
		now := math.Inf(1)
		if finite {
			if now, err = t.heldOut(); err != nil {
				return err
			}
		}
		t.tell(true, step, now)
		switch {
		case now < best:
			best, proven, missed = now, true, false
			for i, a := range t.layers {
				kept[i].CopyWeights(a)
			}
		case !proven:
			back()
			step = 0
		case missed || !(now <= tooFar*best):
			back()
			missed = false
		default:
			missed = true
		}
	}
	for i, a := range t.layers {
		a.CopyWeights(kept[i])
	}
	return nil
}

var errNotFinite = errors.New("the converted network's difference from the source is not finite")

// step moves all layers along the gradient of some sequences and returns their mean loss.
func (t *descent) step(sequences int, rate float64) (float64, error) {
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
		loss += t.backward(t.train, i, 1/float32(tokens)) / float64(tokens)
	}
	for _, opt := range t.optimizers {
		opt.step(t.engine, rate)
	}
	return loss, nil
}

// sequence is one sequence, and copies of both networks' streams over it.
func (s *streams) sequence(i, d int) (b model.Batch, source, converted []float32) {
	lo, hi := s.batch.Starts[i]*d, s.batch.Starts[i+1]*d
	return s.batch.Slice(i, i+1), append([]float32(nil), s.source[lo:hi]...), append([]float32(nil), s.converted[lo:hi]...)
}

func cloneAll(layers []*model.MLA) []*model.MLA {
	out := make([]*model.MLA, len(layers))
	for i, a := range layers {
		out[i] = a.Clone()
	}
	return out
}

// converted is block i with the converted attention.
func (t *descent) converted(i int) *model.Block {
	b := *t.blocks[i]
	b.Attention = t.layers[i]
	return &b
}

// heldOut is the mean loss over the held-out tokens: the divergence, in nats, where the layers end at the logits, the
// drift where they do not.
func (t *descent) heldOut() (float64, error) {
	e, d, sum := t.engine, t.net.Hidden, 0.0
	for s := range t.hold.batch.Sequences() {
		b, source, x := t.hold.sequence(s, d)
		for i := range t.blocks {
			t.converted(i).Forward(e, &b, x)
			if t.end == nil {
				t.blocks[i].Forward(e, &b, source)
				l, _ := match(e, x, source, d, 1/float64(len(t.blocks)))
				sum += l
			}
		}
		if t.end != nil {
			lo, hi := t.hold.batch.Starts[s]*d, t.hold.batch.Starts[s+1]*d
			sum += t.net.Divergence(e, b.Tokens(), t.end[lo:hi], x, 0, nil)
		}
	}
	return sum / float64(t.hold.batch.Tokens()), nil
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

// backward adds share times the gradient of one sequence's summed loss to the layers' gradients and returns that sum.
func (t *descent) backward(set *streams, sequence int, share float32) float64 {
	e := t.engine
	b, source, x := set.sequence(sequence, t.net.Hidden)
	n := b.Tokens()
	kept := make([]passes, len(t.blocks))
	y := make([]float32, len(x))
	loss := 0.0
	for i, block := range t.blocks {
		h := make([]float32, len(x))
		p := &kept[i]
		p.x = append([]float32(nil), x...)
		model.RMSNorm(e, n, x, block.AttnNorm, block.Eps, h)
		p.attention = t.layers[i].Begin(e, &b, h)
		p.attention.Output(y)
		model.Add(e, x, y)
		p.mlp = block.BeginMLP(e, n, x)
		block.Forward(e, &b, source)
		var l float64
		l, p.pull = match(e, x, source, len(x)/n, t.matching/float64(len(t.blocks)))
		loss += l
	}
	dx := make([]float32, len(x))
	if t.end != nil {
		loss += t.net.Divergence(e, n, source, x, softness, dx)
		vec.Scale(share, dx)
	}
	dh := y
	for i := len(t.blocks) - 1; i >= 0; i-- {
		block, p := t.blocks[i], &kept[i]
		vec.Axpy(share, p.pull, dx)
		p.mlp.Backward(e, dx)
		if i == 0 {
			p.attention.Backward(dx, t.grads[i], nil)
			break
		}
		p.attention.Backward(dx, t.grads[i], dh)
		model.RMSNormBackward(e, n, p.x, block.AttnNorm, block.Eps, dh, dx)
		*p = passes{}
	}
	return loss
}
