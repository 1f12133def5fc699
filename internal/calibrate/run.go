package calibrate

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/mla"
	"github.com/mlaconvert/mlaconvert/svd"
)

// streams are the residual streams of one set of tokens through the source and the converted network.
type streams struct {
	batch             model.Batch
	source, converted []float32 // [tokens, hidden]
}

// layerData is what one layer sees and should give on one set of tokens.
type layerData struct {
	batch *model.Batch
	// sourceIn and convertedIn are the normed inputs of the two networks.
	sourceIn, convertedIn []float32
	// output is the source's attention output, target the same plus the drift of the residual stream, converted the
	// converted attention's and heads the input of its output projection [tokens, Heads*VDim].
	output, target, converted, heads []float32
	// weights are how much the tokens count; those that have drifted far count less.
	weights []float64
}

// run is the state of a calibration between layers.
type run struct {
	engine  *blas.Engine
	net     *model.Network
	options Options
	// fit is what layers are fitted to, train what descents see, the same or other tokens, hold decides.
	fit, train, hold *streams
	// texts are the windows without copies of which long texts are made, those of train and more, if there are more; heldTexts
	// those held out.
	texts, heldTexts model.Batch
	// rate is the learning rate that the polish of the first layers chose for that of the others.
	rate  float64
	shelf Shelf
}

// together is how many layers are polished together.
func (r *run) together() int { return max(1, r.options.Polish.Layers) }

// Run converts every layer of net on the given sequences of token ids. With [Options.Neutral] the layers have a latent norm
// and no bias.
func Run(ctx context.Context, e *blas.Engine, net *model.Network, sequences [][]int, o Options) ([]*model.MLA, []LayerReport, error) {
	see, hold, err := split(sequences, o.HoldOut)
	if err != nil {
		return nil, nil, err
	}
	r := &run{engine: e, net: net, options: o}
	if err := r.begin(see, hold); err != nil {
		return nil, nil, err
	}
	layers, reports := make([]*model.MLA, net.Layers), make([]LayerReport, net.Layers)
	corrections, err := r.keptCorrected(layers, reports)
	if err != nil {
		return nil, nil, err
	}
	var train, held [][]float32
	if corrections == 0 || corrections < len(o.Distill) && o.Distill[corrections].Windows <= 1 { // long texts have streams of their own
		if train, held, err = r.fitAll(ctx, layers, reports, corrections > 0); err != nil {
			return nil, nil, err
		}
	}
	if len(o.Distill) > 0 {
		if err := r.correct(ctx, layers, reports, corrections, train, held); err != nil {
			return nil, nil, err
		}
		if err := r.measureDrift(layers, reports); err != nil {
			return nil, nil, err
		}
	}
	if o.Neutral.Width > 0 {
		if err := r.neutralise(ctx, layers, reports); err != nil {
			return nil, nil, err
		}
	}
	return layers, reports, nil
}

// fitAll fits and polishes all layers that the shelf does not have; known says that all are there already. It returns the source's
// streams behind the last of all layers that are polished together, for the corrections, if there are any.
func (r *run) fitAll(ctx context.Context, layers []*model.MLA, reports []LayerReport, known bool) (train, hold [][]float32, err error) {
	train, hold = make([][]float32, len(layers)), make([][]float32, len(layers))
	for first := 0; first < len(layers); first += r.together() {
		last := min(first+r.together(), len(layers))
		g := &group{first, layers[first:last], reports[first:last], train[first:last], hold[first:last]}
		done := known
		if !done {
			if done, err = r.kept(layersName(first), g.layers, g.reports); err != nil {
				return nil, nil, err
			}
		}
		if err := r.fitGroup(ctx, g, done); err != nil {
			return nil, nil, err
		}
		if !done {
			if err := r.keepFitted(first, g.layers, g.reports); err != nil {
				return nil, nil, err
			}
		}
		for layer := first; layer < last; layer++ {
			if !r.watched(layer) {
				train[layer], hold[layer] = nil, nil
			}
		}
	}
	return train, hold, nil
}

// watched says that the corrections, if there are any, count the drift behind a layer: the last of those that are polished together.
func (r *run) watched(layer int) bool {
	return len(r.options.Distill) > 0 && ((layer+1)%r.together() == 0 || layer == r.net.Layers-1)
}

// group is some layers that are polished together, from number first on, their reports, and the source's streams behind them.
type group struct {
	first       int
	layers      []*model.MLA
	reports     []LayerReport
	train, hold [][]float32
}

// fitGroup fits and polishes layers, or takes them as they are if that is done, and moves the streams past them.
func (r *run) fitGroup(ctx context.Context, g *group, done bool) error {
	polishes := r.options.Polish.Steps > 0
	var before starts
	if polishes && !done {
		before = r.starts()
	}
	for i := range g.layers {
		if err := ctx.Err(); err != nil {
			return err
		}
		layer := g.first + i
		var err error
		if done {
			err = r.skip(layer, g.layers[i])
		} else {
			g.layers[i], g.reports[i], err = r.layer(layer)
		}
		if err != nil {
			return fmt.Errorf("layer %d: %w", layer, err)
		}
		if polishes || len(r.options.Distill) > 0 {
			g.train[i], g.hold[i] = slices.Clone(r.train.source), slices.Clone(r.hold.source)
		}
		r.tell(Step{Name: "layer", Layer: layer, Done: layer + 1, Total: r.net.Layers, Figure: g.reports[i].Drift})
	}
	if polishes && !done {
		see, decide := &course{r.train.batch, before.train, g.train}, &course{r.hold.batch, before.hold.converted, g.hold}
		if err := r.polish(ctx, g.first, g.layers, g.reports, before, see, decide); err != nil {
			return fmt.Errorf("layers %d to %d: %w", g.first, g.first+len(g.layers)-1, err)
		}
	}
	return nil
}

// starts are the streams before some layers: the converted network's, and both of the held-out tokens.
type starts struct {
	fit, train []float32
	hold       *streams
}

func (r *run) starts() starts {
	s := starts{slices.Clone(r.fit.converted), nil, r.hold.clone()}
	if s.train = s.fit; r.separate() {
		s.train = slices.Clone(r.train.converted)
	}
	return s
}

// begin lays the sequences that are not held out down for the fits, for the descents and for long texts, and looks for the shelf.
func (r *run) begin(see, hold model.Batch) (err error) {
	r.shelf = orNowhere(r.options.Shelf)
	_, others, texts := r.options.Share(see.Tokens(), see.Longest())
	fit, train := see, see
	if others > 0 {
		fit, train = divide(&see, r.options.FitTokens)
	}
	r.texts, r.heldTexts = train, hold
	if texts > 0 {
		train, _ = divide(&train, others)
	}
	if r.fit, err = r.repeating(&fit); err != nil {
		return err
	}
	if r.train = r.fit; others > 0 {
		if r.train, err = r.repeating(&train); err != nil {
			return err
		}
	}
	r.hold, err = r.repeating(&hold)
	return err
}

// repeating are the streams of windows and their copies.
func (r *run) repeating(windows *model.Batch) (*streams, error) {
	return newStreams(r.net, r.options.Copies.add(windows, r.options.Seed))
}

// divide splits the leading sequences of a batch, of at most so many tokens but one at least, from the others.
func divide(b *model.Batch, tokens int) (leading, others model.Batch) {
	leading, _ = statisticsPart(b, tokens)
	return leading, b.Slice(leading.Sequences(), b.Sequences())
}

// separate says that the descents see other tokens than the fits.
func (r *run) separate() bool { return r.train != r.fit }

// measureDrift runs the held-out tokens through both networks once more.
func (r *run) measureDrift(layers []*model.MLA, reports []LayerReport) error {
	s, err := newStreams(r.net, r.hold.batch)
	if err != nil {
		return err
	}
	for layer, a := range layers {
		block, err := r.net.Block(layer)
		if err != nil {
			return err
		}
		s.pass(r.engine, block, a)
		block.Close()
		reports[layer].Corrected = s.drift(r.net.Hidden)
	}
	return nil
}

func (r *run) tell(s Step) {
	if r.options.Progress != nil {
		r.options.Progress(s)
	}
}

func (s *streams) clone() *streams {
	return &streams{s.batch, slices.Clone(s.source), slices.Clone(s.converted)}
}

// pass moves both streams past a layer of the source that is converted to a.
func (s *streams) pass(e *blas.Engine, block *model.Block, a *model.MLA) {
	block.Forward(e, &s.batch, s.source)
	converted(block, a).Forward(e, &s.batch, s.converted)
}

// converted is a layer of the source with a converted attention.
func converted(block *model.Block, a *model.MLA) *model.Block {
	b := *block
	b.Attention = a
	return &b
}

func newStreams(net *model.Network, b model.Batch) (*streams, error) {
	s := &streams{batch: b}
	var err error
	if s.source, err = net.Embed(&s.batch); err != nil {
		return nil, err
	}
	s.converted = append([]float32(nil), s.source...)
	return s, nil
}

// skip moves both streams past a layer that is converted already, each set in the way that it went then: sums in another order
// would make other streams.
func (r *run) skip(layer int, a *model.MLA) error {
	block, err := r.net.Block(layer)
	if err != nil {
		return err
	}
	defer block.Close()
	if r.options.Polish.Steps > 0 {
		r.fit.pass(r.engine, block, a)
	} else {
		r.follow(block, a, r.fit)
	}
	r.follow(block, a, r.hold)
	if r.separate() {
		r.train.pass(r.engine, block, a)
	}
	return nil
}

// follow moves both streams of a set past a layer that is converted to a, and returns what the layer saw.
func (r *run) follow(block *model.Block, a *model.MLA, s *streams) *layerData {
	t := r.data(block, s)
	r.attend(a, t)
	r.advance(block, s, t)
	return t
}

// layer converts one layer and moves both streams past it.
func (r *run) layer(layer int) (*model.MLA, LayerReport, error) {
	report := LayerReport{Layer: layer}
	block, err := r.net.Block(layer)
	if err != nil {
		return nil, report, err
	}
	defer block.Close()
	source, ok := block.Attention.(*model.GQA)
	if !ok {
		return nil, report, fmt.Errorf("attention is %T, want a source's", block.Attention)
	}
	fit, hold := r.data(block, r.fit), r.data(block, r.hold)
	a, err := r.choose(source, fit, hold, &report)
	if err != nil {
		return nil, report, err
	}
	r.attend(a, fit, hold)
	report.Start = relativeError(hold.converted, hold.target, hold.weights)
	report.Refit = report.Start
	if err := r.refit(a, fit, hold, &report); err != nil {
		return nil, report, err
	}
	report.Polish = report.Refit
	r.advance(block, r.fit, fit)
	r.advance(block, r.hold, hold)
	if r.separate() {
		r.train.pass(r.engine, block, a)
	}
	report.Drift = r.hold.drift(block.Hidden)
	return a, report, nil
}

// data prepares a layer's inputs and targets.
func (r *run) data(block *model.Block, s *streams) *layerData {
	n := s.batch.Tokens()
	t := isolatedData(r.engine, block, &s.batch, s.source)
	t.convertedIn, t.target = make([]float32, n*block.Hidden), make([]float32, n*block.Hidden)
	d := block.Hidden
	r.engine.For(n, func(k int) {
		row := func(x []float32) []float32 { return x[k*d : (k+1)*d] }
		source, converted, target := row(s.source), row(s.converted), row(t.target)
		off, size := apart(converted, source, target)
		_, slope := soften(off/size, softDrift)
		t.weights[k] *= slope
		for i, v := range row(t.output) {
			target[i] = v + source[i] - converted[i]
		}
	})
	model.RMSNorm(r.engine, n, s.converted, block.AttnNorm, block.Eps, t.convertedIn)
	return t
}

// attend runs the converted attention on its own stream over sets of tokens.
func (r *run) attend(a *model.MLA, sets ...*layerData) {
	for _, t := range sets {
		n := t.batch.Tokens()
		if t.heads == nil {
			t.heads, t.converted = make([]float32, n*a.O.In), make([]float32, n*a.O.Out)
		}
		a.HeadOutputs(r.engine, t.batch, t.convertedIn, t.heads)
		a.Output(r.engine, n, t.heads, t.converted)
	}
}

// advance adds the attention's outputs to both streams and runs the MLP.
func (r *run) advance(block *model.Block, s *streams, t *layerData) {
	n := s.batch.Tokens()
	model.Add(r.engine, s.source, t.output)
	block.ForwardMLP(r.engine, n, s.source)
	model.Add(r.engine, s.converted, t.converted)
	block.ForwardMLP(r.engine, n, s.converted)
}

// drift is the relative error of the converted network's stream of d columns.
func (s *streams) drift(d int) float64 {
	return relativeError(s.converted, s.source, tokenWeights(s.source, d))
}

// relativeError is the weighted root-mean-square error of got [tokens, d] over that of want.
func relativeError(got, want []float32, weights []float64) float64 {
	d := len(want) / len(weights)
	var lost, total float64
	for t, w := range weights {
		var a, b float64
		for j, v := range want[t*d : (t+1)*d] {
			e := float64(got[t*d+j] - v)
			a += e * e
			b += float64(v) * float64(v)
		}
		lost += w * a
		total += w * b
	}
	if lost == 0 { // of nothing, too: an attention may be pruned away
		return 0
	}
	return math.Sqrt(lost / total)
}

// sourceLayer widens a source layer's weights.
func sourceLayer(a *model.GQA) *mla.Source {
	return &mla.Source{
		Heads: a.Heads, KVHeads: a.KVHeads, HeadDim: a.HeadDim, Frequencies: a.Frequencies,
		Q: widen(&a.Q), K: widen(&a.K), V: widen(&a.V), O: widen(&a.O),
	}
}

func widen(w *model.Weight) svd.Matrix {
	m := svd.NewMatrix(w.Out, w.In)
	row := make([]float32, w.In)
	for i := range w.Out {
		w.Row(i, row)
		for j, v := range row {
			m.Row(i)[j] = float64(v)
		}
	}
	return m
}
