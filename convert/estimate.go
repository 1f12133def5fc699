package convert

import (
	"cmp"
	"math"
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/bench"
	"github.com/mlaconvert/mlaconvert/internal/calibrate"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/mla"
)

// PhaseWork is the work of one phase of a conversion.
type PhaseWork struct {
	Name string
	Work bench.Work
	// Layers is set where layers are converted side by side, one a job.
	Layers bool
}

// PhaseTime is how long a phase is expected to take.
type PhaseTime struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	// Work is what the time was counted from.
	Work bench.Work `json:"work"`
}

// Estimate returns how long the phases of the conversion are expected to take on a machine of the given rates, on so many
// of its threads and with so many layers at once.
func (p *Plan) Estimate(m *bench.Machine, threads, jobs int) []PhaseTime {
	engines := min(jobs, threads, p.Source.Layers)
	var out []PhaseTime
	for _, phase := range p.Phases() {
		rates := m.Engine(threads)
		if phase.Layers {
			rates = m.SideBySide(engines, max(1, threads/jobs))
		}
		out = append(out, PhaseTime{phase.Name, rates.Seconds(phase.Work), phase.Work})
	}
	return out
}

// Phases counts the work of the conversion, phase by phase. Every product of matrices is counted, 2mnk operations for
// each of m x k by k x n and half of that for a symmetric result computed as one; of the rest what takes longer than a
// hundredth of that. With
//
//	d hidden width, q = H w rows of the queries, k = G w of the keys, H and G heads of width w, S rotary slots, F = w/2
//	source frequencies, r latent rows, f width of the MLP, v vocabulary, L layers, C context of the distances
//
// the largest terms of a layer are, free of data (m = 2k, and D ~ 2.4 r the dimension of the Krylov space),
//
//	d k^2                              covariance of the keys
//	d m^2 + 2 m^2 D + 2 m D^2 + 2 d m r    joint factorization, in float32 where m is large
//	2 d r^2 + 2 d m r                  orthonormal latent and up-projections
//	8 d H S F                          rotary queries
//
// and calibrated, with n tokens in windows of l, n' of them for the statistics and c candidates,
//
//	2 n (4 f + 2 q + 2 k) d ...        both streams through attention and MLP
//	n' H (2 m^2 + l m)                 metrics of the heads, of order m (see mla.MetricWidth)
//	(c + 2 a) 4 H r m^2 + 40 a q m^2   start of the candidates, two sweeps of the a best
//	n q^2                              refit
//
// then, correcting all layers together, s steps of b tokens each: about 6 b v d + L b (12 f d + ...).
func (p *Plan) Phases() []PhaseWork {
	c := newCounts(p)
	phases := []PhaseWork{{Name: "hashing the source", Work: bench.Work{bench.Hash: c.sourceBytes}}}
	if p.Recipe.Calibration == nil {
		return append(phases, PhaseWork{Name: "converting", Layers: true, Work: bench.Sum(c.dataFreeLayer().Times(c.layers), c.output())})
	}
	if p.Recipe.Calibration.Source == CalibrationSelf {
		phases = append(phases, PhaseWork{Name: "sampling calibration tokens", Work: c.sampling()})
	}
	if len(c.thetas) > 1 {
		phases = append(phases, PhaseWork{Name: "choosing the rotary base", Work: c.scouting()})
	}
	calibrating := c.calibratedLayer().Times(c.layers)
	if c.options.Polish.Steps > 0 {
		calibrating.Add(1, c.polishing())
	}
	phases = append(phases, PhaseWork{Name: "calibrating", Work: calibrating})
	if len(c.options.Distill) > 0 {
		phases = append(phases, PhaseWork{Name: "correcting all layers together", Work: c.correcting()})
	}
	return append(phases, PhaseWork{Name: "converting", Layers: true, Work: bench.Sum(c.emission().Times(c.layers), c.output())})
}

// counts are the sizes that work is counted from, as floats, in the names of [Plan.Phases].
type counts struct {
	d, w, heads, groups, q, k, pairs, slots, rank, mlp, vocab, layers, context float64
	// refined says that slots are refined over all frequencies.
	refined bool
	// wide and thin are the kinds of products with the source's weights.
	wide, thin                           bench.Kind
	sourceBytes, outputBytes, layerBytes float64

	options calibrate.Options
	thetas  []float64
	window  float64
	// sourceContext bounds the length of a text, in tokens.
	sourceContext int
	// fit, others, hold, texts and heldTexts are tokens as in portions, measured those of the statistics.
	fit, others, hold, texts, heldTexts, measured float64
	// samples is how many sequences are sampled side by side, in so many batches of the given length.
	samples, batches, length float64
}

func newCounts(p *Plan) *counts {
	m := p.Source
	c := &counts{
		d: float64(m.Hidden), w: float64(m.HeadDim), heads: float64(m.Heads), groups: float64(m.KVHeads),
		pairs: float64(m.HeadDim / 2), slots: float64(p.Recipe.RopeDim / 2), rank: float64(p.ContentRank()),
		mlp: float64(m.Intermediate), vocab: float64(m.Vocab), layers: float64(m.Layers), context: float64(p.Recipe.Context),
		wide: bench.F32, thin: bench.F32Thin, sourceBytes: float64(p.SourceBytes), outputBytes: float64(p.Layout.TotalBytes), layerBytes: float64(p.layerMemory()),
	}
	c.q, c.k = c.heads*c.w, c.groups*c.w
	c.refined = c.slots < c.pairs
	if p.DType == checkpoint.BF16 {
		c.wide, c.thin = bench.BF16, bench.BF16Thin
	}
	r := p.Recipe.Calibration
	if r == nil {
		return c
	}
	window, windows := calibrate.Windows(r.Tokens, r.Window, m.Context)
	sampled, batches, length := calibrate.SampleShape(window, windows, m.Context, 8*m.Layers*m.KVHeads*m.HeadDim)
	c.samples, c.batches, c.length = float64(sampled), float64(batches), float64(length)
	c.options = r.preset(m.HeadDim/2, p.Recipe.RopeDim/2)
	c.thetas = calibrate.Thetas(m.Rope.Theta, m.HeadDim/2, p.Recipe.RopeDim/2)
	s := portionsOf(&c.options, window, windows)
	c.sourceContext = m.Context
	c.window, c.fit, c.others, c.hold = float64(window), float64(s.fit), float64(s.others), float64(s.hold)
	c.texts, c.heldTexts = float64(s.texts), float64(s.heldTexts)
	c.measured = min(c.fit, max(c.window, float64(c.options.StatisticsTokens/window*window)))
	return c
}

// portions are the tokens of a calibration: for the fits, for the descents alone and held out, each with its copies, and those that
// long texts are made of and their held-out ones.
type portions struct{ fit, others, hold, texts, heldTexts int }

// portionsOf is what becomes of so many windows.
func portionsOf(o *calibrate.Options, window, windows int) portions {
	held := heldOut(windows)
	fit, others, texts := o.Share((windows-held)*window, window)
	s := portions{texts: cmp.Or(others, fit) + texts, heldTexts: held * window}
	with := func(tokens int) int { return tokens + o.Copies.Windows(tokens/window, window)*window }
	s.fit, s.others, s.hold = with(fit), with(others), with(held*window)
	return s
}

// output is the copied and the written bytes.
func (c *counts) output() bench.Work { return bench.Work{bench.Write: c.outputBytes} }

// emission is a converted layer's way into the target's tensors, with the bound on its latent.
func (c *counts) emission() bench.Work {
	elements := c.d*(c.q+c.heads*2*c.slots+c.rank+c.q) + c.rank*2*c.q
	return bench.Work{bench.F64: c.rank * c.rank * c.d, bench.Plain: 4 * elements}
}

// dataFreeLayer is mla.DataFree, mla.Convert and what comes before and after.
func (c *counts) dataFreeLayer() bench.Work {
	metrics := bench.Work{bench.F64: 2*c.q*c.w*c.d + c.k*c.w*c.d} // of queries, outputs; energy of the values
	read := bench.Work{bench.Plain: 2 * c.d * (2*c.q + 2*c.k), bench.Fresh: c.layerBytes}
	refined := c.refined
	return bench.Sum(metrics, read, c.slotsFound(refined, false), c.slotRows(c.groups+c.heads), c.positionFree().Times(c.groups), c.phases(c.slots+c.pairs),
		c.slotShare(refined), c.joint(2*c.k, false), c.emission())
}

// keyCovariance is K C K^T, with a dense or a diagonal C.
func (c *counts) keyCovariance(dense bool) bench.Work {
	n := c.groups * c.pairs
	w := bench.Work{bench.F64: c.k * c.k * c.d, bench.Plain: 8 * n * n}
	if dense {
		w[bench.F64] = 2*c.k*c.k*c.d + 2*c.k*c.d*c.d
	}
	return w
}

// slotsFound is mla.FindSlots: a Hermitian eigenproblem for each bundle of frequencies (some eight sweeps of Jacobi
// rotations) and, if refined, four alternating updates with dense systems.
func (c *counts) slotsFound(refined, dense bool) bench.Work {
	n := c.groups * c.pairs
	bundles := min(c.slots, c.pairs)
	order := n / bundles
	w := c.keyCovariance(dense)
	w[bench.Plain] += 200 * bundles * order * order * order
	if refined {
		const updates = 4 // a start and three sweeps
		w[bench.Plain] += updates*8*c.slots*n*(n+2*c.slots) + (updates-1)*16*c.slots*c.slots*n
		w.Add(1, c.phases(c.slots*(c.slots+c.pairs)))
	}
	return w
}

// slotRows are the rotary rows of so many heads, of keys or of queries.
func (c *counts) slotRows(heads float64) bench.Work {
	return bench.Work{bench.F64: 4 * c.d * c.slots * c.w * heads}
}

// positionFree is one call of mla.Slots.positionFree.
func (c *counts) positionFree() bench.Work {
	return bench.Work{bench.F64: 4 * c.d * c.slots * c.w, bench.Plain: 8 * c.d * c.pairs}
}

// phases is so many expected rotations over one distribution.
func (c *counts) phases(n float64) bench.Work {
	const block = 64 // of distances, for which the sines are computed once
	return bench.Work{bench.Math: n * (block + c.context/block), bench.Plain: 4 * n * c.context}
}

// slotShare is the share of the key energy that the slots carry.
func (c *counts) slotShare(refined bool) bench.Work {
	n := c.groups * c.pairs
	touched, met := c.groups, 1.0 // keys of a slot, slots of a key
	if refined {
		touched, met = n, c.slots
	}
	return bench.Work{bench.Plain: 8 * c.slots * n * (touched + c.slots + met)}
}

// joint is svd.Joint for m rows in blocks of the heads' width.
func (c *counts) joint(m float64, dense bool) bench.Work {
	d, r := c.d, min(c.rank, m, c.d)
	w := bench.Work{bench.F64: 2*m*c.w*d + m*c.w*c.w/3} // the weighted stack
	switch left := m <= d; {
	case left && dense:
		w[bench.F64] += 2*m*d*d + 2*m*m*d
		w.Add(1, leading(m, r, 2*m*m, bench.F64))
		w[bench.F64] += 2 * r * m * d
	case left:
		kind := precision(m, r)
		w[kind] += m * m * d
		w.Add(1, leading(m, r, 2*m*m, kind))
		w[kind] += 2 * r * m * d
	case dense: // Cholesky factor, K, trace; products with L^T K L
		w[bench.F64] += d*d*d/3 + m*d*d + 2*d*d*d
		if direct(d, r) {
			w[bench.F64] += 4 * d * d * d
		}
		w.Add(1, leading(d, r, 4*d*d, bench.F64))
	default:
		kind := precision(d, r)
		w[kind] += m*d*d + 4*r*m*d
		w.Add(1, leading(d, r, 2*d*d, kind))
	}
	w[bench.F64] += 2*r*r*d + r*r*r/3 + 2*m*d*r + 2*m*c.w*r // orthonormal latent, up-projections, what they capture
	if dense {
		w[bench.F64] += 2*r*d*d + 2*r*r*d
	}
	return w
}

// precision is the type in which svd.Joint looks for r leading eigenvectors of order n under a diagonal metric, if not
// nearly everything is kept.
func precision(n, r float64) bench.Kind {
	if n >= 512 && !direct(n, r) {
		return bench.F32
	}
	return bench.F64
}

// direct says whether svd reduces a whole matrix of order n for r eigenpairs.
func direct(n, r float64) bool { return n <= 192 || 5*r >= 2*n }

// leading is the r leading eigenpairs of a matrix of order n whose product with a vector takes so many operations:
// a whole reduction to tridiagonal form, half of it in matrix-vector products, with divide and conquer and
// back-transformation; or a Krylov space of about 2.4 r dimensions (2.0 to 2.5 on the layers of SmolLM2-135M), each new
// vector made orthogonal to two blocks, to its own, and to all, and four looks at its projection on the way. The products
// are of the given kind, F64 or F32.
func leading(n, r, product float64, kind bench.Kind) bench.Work {
	if direct(n, r) {
		w := reduction(n)
		w[bench.F64] += n*n*n + 2*r*n*n
		return w
	}
	thin := bench.F64Thin
	if kind == bench.F32 {
		thin = bench.F32Thin
	}
	dim, block := min(n, 2.4*r), max(16, min(64, r/8))
	w := bench.Work{bench.F64Thin: 4 * block * n * dim}
	w[thin] += dim*product + 2*dim*dim*n + 8*block*n*dim
	w.Add(4, reduction(min(n, 2*r)))
	w[bench.F64] += dim*dim*dim + 2*r*dim*dim
	w[kind] += 2 * r * dim * n
	return w
}

// reduction of a symmetric matrix of order n to tridiagonal form, by blocks of 32 rows; its products with vectors leave
// triangles of order 64 to loops.
func reduction(n float64) bench.Work {
	products := max(0, 2*n*n*n/3-64*n*n)
	return bench.Work{bench.F64: 2*n*n*n/3 + 96*n*n, bench.F64Thin: products, bench.Shared: 2*n*n*n/3 - products}
}

// visible is how many keys a query of a window meets in products.
func (c *counts) visible() float64 { return model.VisibleKeys(int(c.window)) }

// projections are the source's attention projections for n tokens.
func (c *counts) projections(n float64) bench.Work {
	var w bench.Work
	w[c.wide] = 2 * n * c.d * (2*c.q + 2*c.k)
	return w
}

// sourceAttention is the source's attention forward over n tokens.
func (c *counts) sourceAttention(n float64) bench.Work {
	w := c.projections(n)
	w[bench.F32] += 4 * n * c.q * c.visible()
	w[bench.Exp] += n * c.heads * c.window / 2
	w[bench.Shared] += 3 * n * (c.q + c.k)
	return w
}

// feedForward is the MLP over n tokens.
func (c *counts) feedForward(n float64) bench.Work {
	w := bench.Work{bench.Exp: n * c.mlp}
	w[c.wide] += 6 * n * c.d * c.mlp
	return w
}

// mlaWeights is the number of weights of a converted layer.
func (c *counts) mlaWeights() float64 {
	return c.d*c.heads*(c.w+2*c.slots) + c.d*(c.rank+2*c.slots) + c.rank*2*c.q + c.d*c.q
}

// mlaForward is a converted layer's attention forward over n tokens, on float32 weights.
func (c *counts) mlaForward(n float64) bench.Work {
	return bench.Work{
		bench.F32:    2*n*c.mlaWeights() + n*c.heads*(4*c.w+4*c.slots)*c.visible(),
		bench.Exp:    n * c.heads * c.window / 2,
		bench.Shared: n * c.heads * (2*c.w + 8*c.slots),
	}
}

// logits is so many products with the output head over n tokens.
func (c *counts) logits(n, products float64) bench.Work {
	var w bench.Work
	w[c.wide] += products * 2 * n * c.d * c.vocab
	return w
}

// sampling is calibrate.SelfSamples: for every position of every sequence all weights once, the cache so far, and a draw,
// which takes an exponential for each token of the vocabulary.
func (c *counts) sampling() bench.Work {
	n := c.samples * c.batches * (c.length - 1)
	var w bench.Work
	w[c.thin] += 2 * n * (c.layers*(c.d*(2*c.q+2*c.k)+3*c.d*c.mlp) + c.d*c.vocab)
	w[bench.Short] += n * c.layers * 4 * c.q * c.length / 2
	w[bench.Exp] += n * (c.layers*(c.heads*c.length/2+c.mlp) + c.vocab)
	w[bench.Shared] += 2 * n * c.vocab
	return w
}

// reduced are the counts in the coordinates in which a layer's metrics are formed: those of a narrower layer.
func (c *counts) reduced() *counts {
	out := *c
	out.d = float64(mla.MetricWidth(int(c.d), int(c.k), int(c.rank)))
	return &out
}

// statistics is calibrate.Statistics over n tokens, or calibrate.ReducedStatistics.
func (c *counts) statistics(n float64) bench.Work {
	w := c.projections(n)
	m := c.reduced().d
	w[bench.F32] += n*c.d*c.d + n*c.q*c.w + // of the inputs and queries
		n*c.heads*(2*c.w*c.visible()+2*m*c.visible()+2*m*m)
	w[bench.Exp] += n * c.heads * c.window / 2
	w[bench.Shared] += n * c.heads * (7*c.window/2 + 6*m)
	w[bench.Math] += c.heads * c.context
	if m < c.d {
		w.Add(1, c.basis(m))
		w[bench.F32] += 2*n*m*c.d + n*m*m // the inputs in the basis, and their second moment
	}
	return w
}

// basis is mla.NewBasis of m directions: the covariances of the outputs, the energies of keys and values, their joint
// factorization, orthonormal rows.
func (c *counts) basis(m float64) bench.Work {
	wide := *c
	wide.rank = m
	w := wide.joint(2*c.k, true)
	w[bench.F64] += c.q*c.w*c.d + 2*c.k*(2*c.d*c.d+2*c.w*c.d) + 2*m*m*c.d + m*m*m/3 + m*m*c.d + 4*c.k*m*m
	return w
}

// candidates is what calibrate.Run does to choose a layer's factorization: every candidate starts, the best few go through
// the sweeps, and after each the error on the held-out tokens is measured.
func (c *counts) candidates() bench.Work {
	var w bench.Work
	each := c.options.Candidates
	for _, candidate := range each {
		w.Add(calibrate.Starts(len(each), int(c.context))/float64(len(each)), bench.Sum(c.reduced().start(candidate), c.fitted()))
	}
	finalists := min(calibrate.Finalists, len(each))
	// Where there are loose slots, they start with the least error.
	loose := slices.ContainsFunc(each, func(c mla.Candidate) bool { return c.Loose })
	w.Add(float64(finalists), bench.Sum(c.reduced().sweep(loose).Times(calibrate.FinalSweeps), c.fitted()))
	return w
}

// start is mla.NewFit: slots, position-free keys of every head, the joint factorization in the mean metric, the heads' readings.
func (c *counts) start(candidate mla.Candidate) bench.Work {
	d := c.d
	w := bench.Sum(c.slotsFound(candidate.Refine, true), c.slotRows(c.groups), c.positionFree().Times(c.heads), c.phases(c.slots+c.pairs).Times(c.heads), c.joint(2*c.q, true), c.fitUp(candidate.Loose))
	w[bench.Plain] += 8 * c.heads * d * d // means of the metrics
	w[bench.F64] += c.heads*(2*c.w*d*d+4*c.w*c.w*d) + d*d*d/3
	if candidate.Loose {
		w.Add(1, c.normalise(true))
		far := mla.FlatWindows * c.context
		w[bench.Math] += (c.slots + c.pairs) * far
		w[bench.F64] += 8 * c.heads * c.slots * (c.slots + c.pairs) * far
	}
	return w
}

// rows are those that a fit looks for: the latent's and the loose slots'.
func (c *counts) rows(loose bool) float64 {
	if loose {
		return c.rank + 2*c.slots
	}
	return c.rank
}

// fitted is mla.Fit.Attention and its error on the held-out tokens.
func (c *counts) fitted() bench.Work {
	w := bench.Sum(c.slotRows(c.heads), c.mlaForward(c.hold))
	w[bench.Plain] += 2*c.d*c.q + 2*c.heads*c.rank*c.d + 6*c.hold*c.d
	if m := c.reduced().d; m < c.d {
		w.Add(1, c.slotRows(c.groups)) // the keys', in full
		w[bench.F64] += 2 * c.rank * m * c.d
	}
	return w
}

// fitUp is the best up-projections of all heads, of keys and of values.
func (c *counts) fitUp(loose bool) bench.Work {
	d := c.d
	of := func(n float64) float64 { return 2*n*d*d + 2*n*n*d + 2*n*d*c.w + n*n*n/3 + 4*n*n*c.w }
	return bench.Work{bench.F64: c.heads * (of(c.rows(loose)) + of(c.rank))}
}

// normalise makes the latent orthonormal, and takes that back in what the heads make of it.
func (c *counts) normalise(loose bool) bench.Work {
	d, n, r := c.d, c.rows(loose), c.rank
	return bench.Work{bench.F64: 2*n*d*d + 2*n*n*d + r*r*d + r*r*r/3 + 4*c.heads*c.w*r*r}
}

// sweep is one alternation: nine applications of the normal equations (the residual's and eight conjugate steps), each with
// its preconditioner, the latent orthonormal again, the up-projections.
func (c *counts) sweep(loose bool) bench.Work {
	d, r, n := c.d, c.rank, c.rows(loose)
	const steps = 9
	w := bench.Sum(c.fitUp(loose), c.normalise(loose))
	begin := func(n float64) float64 { return 2*n*c.w*c.w + 2*n*n*c.w + 2*n*c.w*d + 2*c.w*d*d }
	factored := 4*r*c.w*d + 2*c.w*d*d
	keys := factored
	if loose {
		keys = 2*n*d*d + 2*n*n*d
	}
	w[bench.F64] += c.heads*(begin(n)+begin(r)) + n*n*n/3 + steps*(c.heads*(keys+factored)+2*n*n*d+2*n*d*d)
	return w
}

// calibratedLayer is one layer of calibrate.Run.
func (c *counts) calibratedLayer() bench.Work {
	n := c.fit + c.hold
	w := bench.Sum(c.sourceAttention(n), c.statistics(c.measured), c.candidates(), c.mlaForward(n))
	// The refit: normal equations, four ridges, the outputs again.
	width := c.q + 1
	w[bench.F32] += c.fit*width*width + 2*c.fit*width*c.d + 4*2*c.hold*c.q*c.d + 2*n*c.q*c.d
	w[bench.F64] += 4 * (width*width*width/3 + 2*width*width*c.d)
	w[bench.Plain] += 4*width*width + c.fit*(2*width+4*c.d) + 8*c.q/512*width*c.d + 4*6*c.hold*c.d
	// Both streams on.
	w.Add(2, c.feedForward(n))
	w[bench.Plain] += 12 * n * c.d
	source, converted := c.layerForward()
	w.Add(c.others, bench.Sum(source, converted))
	return w
}

// scouting is calibrate.Scout.
func (c *counts) scouting() bench.Work {
	windows := *c // without copies
	windows.fit, windows.hold = c.texts, c.heldTexts
	c = &windows
	n := min(c.fit, max(c.window, math.Floor(calibrate.ScoutTokens/c.window)*c.window))
	tried := math.Ceil((c.layers - math.Floor(c.scoutStep()/2)) / c.scoutStep())
	one := bench.Sum(c.statistics(n), c.candidates().Times(float64(len(c.thetas))))
	forward := bench.Sum(c.sourceAttention(n+c.hold), c.feedForward(n+c.hold))
	return bench.Sum(one.Times(tried), forward.Times(c.layers))
}

// mlaBack is one token's way back through a layer's attention: gradients of weights and inputs, scores again and four
// products with them.
func (c *counts) mlaBack() bench.Work {
	dim := c.w + 2*c.slots
	return bench.Work{
		bench.F32:    4*c.mlaWeights() + c.heads*(6*dim+4*c.w)*c.visible(),
		bench.Exp:    c.heads * c.window / 2,
		bench.Shared: c.heads * (3*c.visible() + 4*dim),
	}
}

// descent is one token's part in a step of the descent over one layer: the converted network forward and back, the MLP to
// its input alone.
func (c *counts) descent() bench.Work {
	w := bench.Sum(c.mlaForward(1), c.feedForward(1), c.mlaBack())
	w[c.wide] += 6 * c.d * c.mlp
	w.Add(1, bench.Work{bench.Exp: c.mlp, bench.Shared: 10*c.mlp + 8*c.d})
	return w
}

// polishing is the descent of some layers together, for all of them, with looks at the held-out tokens and both sets' way
// through the layers in the end.
func (c *counts) polishing() bench.Work {
	o := c.options.Polish
	early := min(c.layers, float64(o.Layers))
	// Of a layer; as a rule the first rate on trial serves.
	steps := early*float64(o.EarlySteps+calibrate.TrialSteps) + (c.layers-early)*float64(o.Steps)
	checks := c.layers + steps/calibrate.CheckEvery + early
	w := c.descent().Times(steps * float64(o.Sequences) * c.window)
	w[bench.Shared] += 15 * steps * c.mlaWeights() // the optimizer and the average
	source, converted := c.layerForward()
	w.Add(checks*c.hold, converted)
	w.Add(c.layers*c.hold, bench.Sum(source, converted))
	w.Add(c.layers*(c.fit+c.others), converted)
	return w
}

// layerForward is one token's way through a layer of the source and of the converted network.
func (c *counts) layerForward() (source, converted bench.Work) {
	return bench.Sum(c.sourceAttention(1), c.feedForward(1)), bench.Sum(c.mlaForward(1), c.feedForward(1))
}

func (c *counts) scoutStep() float64 {
	return max(1, math.Floor(c.layers/calibrate.ScoutLayers))
}

// correcting is the corrections of calibrate.Run, and the drift of the layers behind them.
func (c *counts) correcting() bench.Work {
	source, converted := c.layerForward()
	w := bench.Sum(source, converted).Times(c.layers * c.hold)
	for i := range c.options.Distill {
		w.Add(1, c.correction(&c.options.Distill[i]))
	}
	return w
}

// correction is a descent on the divergence of the logits: in each step a batch forward, the logits of both networks, and back;
// every CheckEvery steps and once before, the held-out tokens forward. Long texts go through the source first. Kept passes are not
// run again.
func (c *counts) correction(o *calibrate.Distill) bench.Work {
	length, sequences := o.Texts(int(c.window), c.sourceContext)
	text := *c
	text.window = float64(length)
	n := float64(sequences) * text.window
	steps, checks := float64(o.Steps), 1+math.Ceil(float64(o.Steps)/calibrate.CheckEvery)

	source, converted := text.layerForward()
	source, forward := source.Times(c.layers), converted.Times(c.layers)
	divergence := c.logits(1, 2)
	divergence[bench.Exp] += 2 * c.vocab
	divergence[bench.Shared] += 6 * c.vocab

	step := bench.Sum(text.descent().Times(c.layers), divergence, c.logits(1, 1)).Times(n)
	step[bench.Shared] += 15 * c.layers * c.mlaWeights() // the optimizer and the average
	w, hold := step.Times(steps), c.hold
	if o.Windows > 1 {
		hold = c.heldTexts
		w.Add(c.texts+hold, source)
	}
	w.Add(checks*hold, bench.Sum(forward, divergence))
	return w
}
