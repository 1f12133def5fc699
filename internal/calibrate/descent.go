package calibrate

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/vec"
)

// nothingLost is a loss that rounding could be the cause of: steps would only walk at random.
const nothingLost = 1e-7

const (
	// softDivergence is the divergence of a token, in nats, from which on it counts less and less in the descent: gradients
	// are noise from few tokens otherwise. On SmolLM2-135M 20 steps with it lowered the held-out divergence, which counts
	// all tokens in full, from 0.2125 to 0.2018, without it to 0.2061.
	softDivergence = 0.5
	// softDrift is the same for the squared relative drift of a token's residual stream, in fits as in descents. On
	// SmolLM2-135M one token of 4,096 that the conversion makes massive drifts by 16 times its length, where the median is a
	// tenth, and alone was 83 % of the loss behind layer 11.
	softDrift = 0.25
)

// soften returns soft*log(1+loss/soft), which is loss where that is small, and its derivative by loss.
func soften(loss, soft float64) (softened, slope float64) {
	return soft * math.Log1p(loss/soft), 1 / (1 + loss/soft)
}

const (
	// CheckEvery is how many steps lie between two looks at the held-out tokens.
	CheckEvery = 20
	// TrialSteps is how many steps a rate is on trial. What serves a small model makes a real one worse.
	TrialSteps = 8
	slowdown   = 3
	// tooFar is how many times the least held-out loss a look may find. More makes the descent go back to the best state and on
	// more slowly; looks that gain nothing do not, as the rate falls in time.
	tooFar = 1.03
	// averaged is how much of the average of the weights each step leaves (Polyak & Juditsky 1992; here of the last steps,
	// exponentially). The averages are what the held-out tokens judge: steps of a rate that gets on are noisy. The
	// polish of SmolLM2-135M's first six layers reached in 20 steps the loss that it took 40 to without.
	averaged = 0.95
	// leastRate is the share of the first rate below which there is nothing to gain.
	leastRate = 1e-3
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
	// matching is the weight of the mean of |x - x_source|^2 / |x_source|^2 over the layers behind which it counts.
	matching float64
	// logits says that the layers end at the logits, whose divergence counts too.
	logits      bool
	train, hold *course
	// recompute has the way back go every layer's way forward again, which takes less memory.
	recompute bool
	source    *rand.PCG
	random    *rand.Rand // from source
	order     []int      // sequences that this pass over the training tokens has still to come to
	// shelf keeps the state under a name, not sooner than keepEvery after the last time; at 0 behind every step.
	shelf     Shelf
	name      string
	keepEvery time.Duration
	// tell hears of every step's loss, and of every look at the held-out tokens.
	tell func(heldOut bool, step int, loss float64)
}

// trail is where a descent is between two steps, besides its layers and their optimizers.
type trail struct {
	// Began is the rate that it started at, Rate what has become of that.
	Began, Rate float64
	// Best is the least held-out loss of all looks.
	Best float64
	// Step is the number of steps taken, Age of those since the last restart.
	Step, Age int
	// kept is the state of the layers that had the least loss, average the average of the last steps.
	kept, average []*model.MLA
}

// course is what a descent sees of some tokens.
type course struct {
	batch model.Batch
	// start is the converted network's residual stream before the first of the layers, [tokens, hidden].
	start []float32
	// behind holds the source's residual stream behind each of the layers, nil where the drift behind it does not count.
	behind [][]float32
}

// matched is the number of layers behind which the drift counts.
func (c *course) matched() int {
	n := 0
	for _, x := range c.behind {
		if x != nil {
			n++
		}
	}
	return n
}

// sequence is one sequence, a copy of the converted network's stream over it, and where its rows lie.
func (c *course) sequence(i, d int) (b model.Batch, x []float32, lo, hi int) {
	lo, hi = c.batch.Starts[i]*d, c.batch.Starts[i+1]*d
	return c.batch.Slice(i, i+1), append([]float32(nil), c.start[lo:hi]...), lo, hi
}

// newDescent prepares the layers that begin with number first. Close it after use.
func newDescent(e *blas.Engine, net *model.Network, first int, layers []*model.MLA, train, hold *course) (*descent, error) {
	t := &descent{engine: e, net: net, layers: layers, train: train, hold: hold, shelf: nowhere{}}
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

// run goes down and leaves the layers in the averaged state with the least held-out loss that it has seen. With trials it
// starts at the first of some rates that serves, without at o.Rate. It returns the rate that it started at, 0 if none served.
func (t *descent) run(ctx context.Context, o Descent, trials bool, seed uint64) (rate float64, err error) {
	t.source = rand.NewPCG(seed, 1<<33)
	t.random, t.order = rand.New(t.source), nil
	s := &trail{kept: cloneAll(t.layers), average: cloneAll(t.layers)}
	known, err := t.recall(s)
	if err != nil {
		return 0, err
	}
	if !known {
		if s.Best, err = t.heldOut(t.layers); err != nil {
			return 0, err
		}
		if !isFinite(s.Best) {
			return 0, errNotFinite
		}
		t.tell(true, 0, s.Best)
		if s.Best < nothingLost {
			return 0, nil
		}
		s.Began = o.Rate
		if trials {
			if s.Began, err = t.pick(ctx, o, s); err != nil {
				return 0, err
			}
		}
		s.Rate = s.Began
	}
	return s.Began, t.descend(ctx, o, s)
}

// pick tries rates, each a third of the one before it, and returns the first that lowers the held-out loss in TrialSteps, 0 if
// none does: so few steps tell a rate that harms, not which of two brings more in the end. The layers are as they were.
func (t *descent) pick(ctx context.Context, o Descent, s *trail) (float64, error) {
	for rate := o.Rate; rate > o.Rate*leastRate; rate /= slowdown {
		loss := 0.0
		for step := 0; step < TrialSteps && isFinite(loss); step++ {
			var err error
			if loss, err = t.step(ctx, o.Sequences, rate*schedule(step, o.Steps, o.Constant)); err != nil {
				return 0, err
			}
			t.average(s.average, step+1)
			t.tell(false, step+1, loss)
		}
		now, err := t.look(s.average, TrialSteps, loss)
		if err != nil {
			return 0, err
		}
		t.restart(s.kept)
		if now < s.Best {
			return rate, nil
		}
	}
	return 0, nil
}

// descend takes the steps that are left of o.Steps, at a rate that falls where they go wrong, and leaves the layers in the best
// state.
func (t *descent) descend(ctx context.Context, o Descent, s *trail) error {
	last, pause := time.Now(), t.keepEvery
	for s.Step < o.Steps && s.Rate > s.Began*leastRate {
		if err := t.advance(ctx, o, s); err != nil {
			return err
		}
		if s.Step < o.Steps && time.Since(last) >= pause {
			last = time.Now()
			if err := t.keep(s); err != nil {
				return err
			}
			if t.keepEvery > 0 {
				pause = max(t.keepEvery, keepShare*time.Since(last))
			}
		}
	}
	t.restart(s.kept)
	return nil
}

// keepShare is how many times as long as it takes to keep a state a descent goes on before it keeps another: that of a large network
// takes minutes.
const keepShare = 50

// advance takes a step, and a look if one is due.
func (t *descent) advance(ctx context.Context, o Descent, s *trail) error {
	loss, err := t.step(ctx, o.Sequences, s.Rate*schedule(s.Step, o.Steps, o.Constant))
	if err != nil {
		return err
	}
	s.Step++
	s.Age++
	t.average(s.average, s.Age)
	t.tell(false, s.Step, loss)
	if isFinite(loss) && s.Step%CheckEvery != 0 && s.Step != o.Steps {
		return nil
	}
	now, err := t.look(s.average, s.Step, loss)
	if err != nil {
		return err
	}
	switch {
	case now < s.Best:
		s.Best = now
		for i, a := range s.average {
			s.kept[i].CopyWeights(a)
		}
	case !(now <= tooFar*s.Best):
		s.Rate /= slowdown
		s.Age = 0
		t.restart(s.kept)
	}
	return nil
}

// look tells of and returns the held-out loss of a state after so many steps; it is infinite if the last step's loss was not
// finite.
func (t *descent) look(state []*model.MLA, step int, loss float64) (float64, error) {
	now := math.Inf(1)
	if isFinite(loss) {
		var err error
		if now, err = t.heldOut(state); err != nil {
			return 0, err
		}
	}
	t.tell(true, step, now)
	return now, nil
}

// restart sets the layers to a state and forgets the gradients seen so far.
func (t *descent) restart(state []*model.MLA) {
	for i, a := range t.layers {
		a.CopyWeights(state[i])
		t.optimizers[i].reset()
	}
}

// average takes the layers' state after so many steps into the average.
func (t *descent) average(average []*model.MLA, steps int) {
	for i, a := range average {
		if steps == 1 {
			a.CopyWeights(t.layers[i])
			continue
		}
		a.Approach(t.engine, t.layers[i], float32(math.Max(1-averaged, 1/float64(steps))))
	}
}

func isFinite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

var errNotFinite = errors.New("the converted network's difference from the source is not finite")

// step moves all layers along the gradient of some sequences and returns their mean loss.
func (t *descent) step(ctx context.Context, sequences int, rate float64) (float64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
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
		loss += t.backward(i, 1/float32(tokens)) / float64(tokens)
	}
	for _, opt := range t.optimizers {
		opt.step(t.engine, rate)
	}
	return loss, nil
}

func cloneAll(layers []*model.MLA) []*model.MLA {
	out := make([]*model.MLA, len(layers))
	for i, a := range layers {
		out[i] = a.Clone()
	}
	return out
}

// heldOut is the loss of the given layers over the held-out sequences: the [typical] of their mean losses over tokens, which are the
// divergence, in nats, where the layers end at the logits, the drift where they do not.
func (t *descent) heldOut(layers []*model.MLA) (float64, error) {
	e, d := t.engine, t.net.Hidden
	last := len(t.blocks) - 1
	losses := make([]float64, t.hold.batch.Sequences())
	for s := range losses {
		b, x, lo, hi := t.hold.sequence(s, d)
		sum := 0.0
		for i := range t.blocks {
			converted(t.blocks[i], layers[i]).Forward(e, &b, x)
			if want := t.hold.behind[i]; want != nil && !t.logits {
				loss, _ := match(e, x, want[lo:hi], d, 1/float64(t.hold.matched()))
				sum += loss
			}
		}
		if t.logits {
			sum += t.net.Divergence(e, b.Tokens(), t.hold.behind[last][lo:hi], x, 0, nil)
		}
		losses[s] = sum / float64(b.Tokens())
	}
	return typical(losses), nil
}

// typical is the interquartile mean of losses, and not finite if one of them is not. A token that becomes massive moves all that
// attend to it: one window of SmolLM2's 16 had half of the drift behind layers 0 to 5, which in one descent doubled between two
// looks while the others fell.
func typical(losses []float64) float64 {
	sorted := slices.Sorted(slices.Values(losses)) // NaN comes first
	if ends := sorted[0] + sorted[len(sorted)-1]; !isFinite(ends) {
		return ends
	}
	cut := len(sorted) / 4
	middle, sum := sorted[cut:len(sorted)-cut], 0.0
	for _, l := range middle {
		sum += l
	}
	return sum / float64(len(middle))
}

// passes is what one layer's way back needs of its way forward.
type passes struct {
	x         []float32 // the residual stream before the layer
	attention *model.Pass
	mlp       *model.MLPPass
	// pull is the derivative of the layer's matching loss by the residual stream behind it, nil where there is none.
	pull []float32
}

// apart sets diff to got - want and returns the squares of its length and of want's, which is infinite where want is zero: no
// drift relates to that, and none counts.
func apart(got, want, diff []float32) (off, size float64) {
	copy(diff, got)
	vec.Axpy(-1, want, diff)
	off, size = float64(vec.SumSquares(diff)), float64(vec.SumSquares(want))
	if size == 0 {
		return off, math.Inf(1)
	}
	return off, math.Max(size, 1e-30)
}

// match returns weight times the sum over tokens of the softened |x - want|^2 / |want|^2, x and want [tokens, d], and its
// derivative by x.
func match(e *blas.Engine, x, want []float32, d int, weight float64) (float64, []float32) {
	n := len(x) / d
	pull := make([]float32, len(x))
	losses := make([]float64, n)
	e.For(n, func(t int) {
		out := pull[t*d : (t+1)*d]
		off, size := apart(x[t*d:(t+1)*d], want[t*d:(t+1)*d], out)
		share := 1 / size
		loss, slope := soften(share*off, softDrift)
		losses[t] = weight * loss
		vec.Scale(float32(2*weight*share*slope), out)
	})
	sum := 0.0
	for _, l := range losses {
		sum += l
	}
	return sum, pull
}

// forward moves the streams x of a batch past layer i of the converted network.
func (t *descent) forward(i int, b *model.Batch, x []float32) *passes {
	block, n := t.blocks[i], b.Tokens()
	p := &passes{x: append([]float32(nil), x...)}
	h, y := make([]float32, len(x)), make([]float32, len(x))
	model.RMSNorm(t.engine, n, x, block.AttnNorm, block.Eps, h)
	p.attention = t.layers[i].Begin(t.engine, b, h)
	p.attention.Output(y)
	model.Add(t.engine, x, y)
	p.mlp = block.BeginMLP(t.engine, n, x)
	return p
}

// backward adds share times the gradient of one sequence's summed loss to the layers' gradients and returns that sum.
func (t *descent) backward(sequence int, share float32) float64 {
	e := t.engine
	b, x, lo, hi := t.train.sequence(sequence, t.net.Hidden)
	n, last := b.Tokens(), len(t.blocks)-1
	kept := make([]*passes, len(t.blocks))
	loss, weight := 0.0, t.matching/float64(t.train.matched())
	for i := range t.blocks {
		p := t.forward(i, &b, x)
		if want := t.train.behind[i]; want != nil {
			var l float64
			l, p.pull = match(e, x, want[lo:hi], len(x)/n, weight)
			loss += l
		}
		if kept[i] = p; t.recompute {
			p.attention, p.mlp = nil, nil
		}
	}
	dx, dh := make([]float32, len(x)), make([]float32, len(x))
	if t.logits {
		loss += t.net.Divergence(e, n, t.train.behind[last][lo:hi], x, softDivergence, dx)
		vec.Scale(share, dx)
	}
	for i := last; i >= 0; i-- {
		block, p := t.blocks[i], kept[i]
		if p.pull != nil {
			vec.Axpy(share, p.pull, dx)
		}
		if t.recompute {
			p = t.forward(i, &b, p.x)
		}
		p.mlp.Backward(e, dx)
		if i == 0 {
			p.attention.Backward(dx, t.grads[i], nil)
			break
		}
		p.attention.Backward(dx, t.grads[i], dh)
		model.RMSNormBackward(e, n, p.x, block.AttnNorm, block.Eps, dh, dx)
		kept[i] = nil
	}
	return loss
}
