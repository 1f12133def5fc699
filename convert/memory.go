package convert

import (
	"fmt"

	"github.com/mlaconvert/mlaconvert/internal/calibrate"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/ui"
	"github.com/mlaconvert/mlaconvert/mla"
)

// layerMemory is the peak memory of one layer in work, in bytes: with d the hidden width, q and k the rows of the query
// and of the key projection, r the latent rows and n = min(2k, d) the order of the joint eigenproblem, in float64
//
//	d (2k + rope)      the source's K and V (of Q and O there is a part at a time), rotary key
//	d (k + 2k + 2k)    position-free keys; the weighted stack of keys and values; the same times the metric
//	2 n^2              the eigenproblem
//	8 n (r+64)         its blocks of vectors and their oversampling, or
//	2 n^2              its reduction, where it is solved directly (5 r >= 2 n)
//	3 r d + 2 q r      down-projection with its steps; up-projections of the heads
//	q w + 2 k^2        query covariances of head width w; the real and the complex covariance of the keys
//
// and in float32 the larger of the latent's tensors. Not all of it is live at one moment (see [Plan.PeakMemory]).
func (p *Plan) layerMemory() int64 {
	m := p.Source
	d, w := int64(m.Hidden), int64(m.HeadDim)
	q, k := int64(m.Heads)*w, int64(m.KVHeads)*w
	rope := int64(p.Recipe.RopeDim)
	r := int64(p.ContentRank())
	n := min(2*k, d)
	doubles := d*(2*k+rope) + 5*d*k + 2*n*n + 3*r*d + 2*q*r + q*w + 2*k*k
	if 5*r < 2*n {
		doubles += 8 * n * (r + 64)
	} else {
		doubles += 2 * n * n
	}
	rank, heads := int64(p.Target.Rank), int64(p.Target.Heads)
	largest := 4 * max((rank+rope)*d, heads*int64(p.Target.NoPEDim+p.Target.VDim)*rank)
	if !p.Target.Bias {
		// Behind it, the energy rows: their directions out of a matrix of order d, and the latent with its steps.
		doubles = max(doubles, d*2*k+3*r*d+2*q*r+2*d*d+4*d*rank)
	}
	return 8*doubles + largest
}

const (
	// baseMemory is the program itself and the pages of the source in flight; jobMemory what every further layer at once adds
	// to it, buffers of the kernels and of the writer.
	baseMemory = 20e6
	jobMemory  = 8e6
	// firstShare is how much of a layer's matrices, with the garbage, is resident at the peak of the first, moreShare of every
	// further layer at once, whose peaks do not coincide. Both are measured, on models from hidden 576 to 4,096, grouped and
	// multi-head, ranks 128 to 512, one layer and two at once: the prediction was 12 % less to 15 % more than the peak.
	firstShare = 0.94
	moreShare  = 0.85
	// margin is what a limit leaves free, for the prediction may be too low by that.
	margin = 0.12
	// garbage is how far the heap grows beyond what is live, with GCPercent.
	garbage = 1.2
)

// GCPercent is the garbage collection target that [Plan.PeakMemory] counts on. Collecting often costs nothing here, where
// memory is a few large matrices.
const GCPercent = 20

// Schedule is how much of a conversion is in memory at once. It has no influence on the output.
type Schedule struct {
	// Jobs is how many layers are converted at once, at least 1; those of a calibration come one after the other.
	Jobs int `json:"jobs"`
	// Together bounds how many calibration sequences are sampled side by side, InFlight how many tokens go through a layer's
	// attention together; 0 stands for as many as pay.
	Together int `json:"together,omitempty"`
	InFlight int `json:"in_flight,omitempty"`
	// Recompute has descents go each layer's way forward twice, instead of keeping all layers' until the way back.
	Recompute bool `json:"recompute,omitempty"`
	// Release gives the pages of the source's weights back after every product with them, to be mapped again for the next,
	// instead of when a phase is done with them.
	Release bool `json:"release,omitempty"`
}

// String names what sets the schedule apart.
func (s Schedule) String() string {
	text := fmt.Sprintf("%d layer(s) at once", s.Jobs)
	if s.InFlight > 0 {
		text += fmt.Sprintf(", %d tokens in attention", s.InFlight)
	}
	if s.Recompute {
		text += ", descents that go forward twice"
	}
	if s.Release {
		text += ", weights mapped only while they are used"
	}
	if s.Together > 0 {
		text += fmt.Sprintf(", at most %d sequences sampled together", s.Together)
	}
	return text
}

// PeakMemory predicts the peak resident memory of the conversion under a schedule, in bytes.
func (p *Plan) PeakMemory(s Schedule) int64 {
	more := float64(s.Jobs - 1)
	writing := int64(baseMemory + more*jobMemory + (firstShare+more*moreShare)*float64(p.layerMemory()))
	if p.Recipe.Calibration == nil {
		return writing
	}
	writing += int64(garbage * 4 * float64(int64(p.Source.Layers)*p.attentionParameters())) // all layers wait to be written
	for _, phase := range p.calibrationMemory(s) {
		writing = max(writing, phase.bytes())
	}
	return writing
}

// attentionParameters is the number of weights of one converted layer's attention.
func (p *Plan) attentionParameters() int64 {
	sum := int64(0)
	for _, spec := range p.AttentionSpecs() {
		size := int64(1)
		for _, x := range spec.Shape {
			size *= int64(x)
		}
		sum += size
	}
	return sum
}

// phaseMemory is the peak memory of one phase, in bytes: what is allocated, and the pages of the source that are mapped.
type phaseMemory struct {
	name           string
	heap, resident int64
}

func (m *phaseMemory) bytes() int64 {
	return int64(baseMemory+garbage*float64(m.heap)) + m.resident
}

// calibrationMemory is the peak memory of the phases of a calibration. With t the tokens of a layer's fit and those held out, s
// those of the descents, or of their long texts, and those held out, s' those of the descents that no layer is fitted to, all with
// their copies, d the hidden width, H heads of width w with q = H w, k rows of keys, m the order of the metrics (see mla.MetricWidth), r latent rows, c factorizations, f the
// width of the MLP, v the vocabulary, L layers of a weights each,
//
//	sampling    the caches of the sequences side by side, their logits; all of the source's weights
//	fitting     4 t 7 d                  both streams; inputs, outputs and targets of a layer
//	            8 (2 H m^2 + c (q m + 2 m^2 + 2 q r)) + 4 n (q + 2 k + m)  the metrics of all heads; keys, mean metrics and
//	                                     up-projections of the c factorizations held; projections of n tokens
//	            4 c a + 16 d H rope + ...  their attention in float32, and two of them on the way there, in float64
//	            16 D (2 rope + w + 4) + 2 D H  of two starts with loose slots, sines and cosines of slots and pairs over D = 4
//	                                     contexts of distances, and those of the slots times the distances' weights; these of
//	                                     a head at a time, and of all heads over one context
//	            or 4 t (d + q)           outputs of the converted attention and of its heads, with the normal equations
//	            8 d (2 q + 2 k)          the source's attention
//	            4 (1 + p + (L-1)/p) s d  the converted stream before the p layers that are polished together, where they are,
//	                                     and the source's behind them and behind those before
//	            4 (t + 2 s') d           the same of the fit, both streams of the descents, where they are others
//	            or 4 2 s' d              a layer's inputs and outputs on the way of these, behind the fit
//	            4 L a                    the layers converted so far
//	polishing   4 ((2 t + 2 s' + (1 + p + (L-1)/p) s) d + L a + 5 p a)  streams; gradients, two moments, average and best state of the p layers
//	neutralising  4 t (8 d + q + r)      as fitting, with the latents, r wide
//	            8 (n (2 d + 3 r) + 24 r d + 3 d^2)  n tokens of the fit in two coordinates, its latents, the steps of L-BFGS
//	correcting  4 (6 L a + (1 + L/p) s d)  weights, gradients, two moments, average and best state; the embeddings, the
//	                                     source's streams behind every p layers
//	            4 l L (6 d + 4 q + 2 f + ...)  what one text of l tokens keeps for the way back,
//	            4 l (L d + 6 d + ...)    or of one layer, where that is computed again
//
// and the buffers of a forward pass: intermediates of the MLP for a chunk of tokens, logits of a slice, queries, keys and
// values of a group.
func (p *Plan) calibrationMemory(s Schedule) []phaseMemory {
	m, c := p.Source, p.Recipe.Calibration
	window, windows := calibrate.Windows(c.Tokens, c.Window, m.Context)
	o := c.preset(m.HeadDim/2, p.Recipe.RopeDim/2)
	d, l := int64(m.Hidden), int64(m.Layers)
	tokens := portionsOf(&o, window, windows)
	t, others, held := int64(tokens.fit+tokens.hold), int64(tokens.others), int64(tokens.hold)
	see := t
	if others > 0 {
		see = others + held
	}
	heads, w := int64(m.Heads), int64(m.HeadDim)
	q, kv := heads*w, int64(m.KVHeads)*w
	rank, rope := int64(p.ContentRank()), int64(p.Recipe.RopeDim)
	a := p.attentionParameters()
	f, vocab := int64(m.Intermediate), int64(m.Vocab)
	// What a token's attention holds besides: latent, queries, keys, up-projected keys and values, outputs.
	states := rank + rope + 2*heads*(w+rope) + 2*q + q
	const chunk, slice = 8 << 20, 16 << 20
	group := int64(model.GroupTokens)
	if s.InFlight > 0 {
		group = max(int64(s.InFlight), int64(window))
	}
	forward := 4 * max(3*f*min(t, max(128, min(4096, chunk/f))), states*min(t, group))
	logits := 4 * 2 * vocab * min(256, slice/vocab+1)

	// The source's pages: embeddings and head, and so many layers; under Release only the largest weight is left.
	size := int64(p.DType.Size())
	layerBytes := size * (d*(2*q+2*kv) + 3*d*f)
	mapped := func(layers int64) int64 {
		if s.Release {
			return size * max(vocab*d, f*d, q*d)
		}
		return max(p.SourceBytes-(l-layers)*layerBytes, 0)
	}
	widened := func(layers int64) int64 { // float16 is widened into memory
		if p.DType != checkpoint.F16 {
			return 0
		}
		return p.SourceBytes/size*4 - (l-layers)*layerBytes/size*4
	}
	// What a descent over so many layers keeps of one text for its way back.
	passes := func(length, layers int64) int64 {
		one := 6*d + states + 2*f
		if s.Recompute {
			return length * (layers*d + one)
		}
		return length * layers * one
	}
	var out []phaseMemory
	phase := func(name string, layers, heap int64) {
		out = append(out, phaseMemory{name, heap + widened(layers), mapped(layers)})
	}

	if c.Source == CalibrationSelf {
		batch, _, length := calibrate.SampleShape(window, windows, m.Context, 8*m.Layers*m.KVHeads*m.HeadDim)
		parts := calibrate.SampleParts(batch, s.Together)
		together := int64((batch + parts - 1) / parts)
		phase("sampling", l, together*(8*int64(length)*l*kv+4*(2*vocab+2*f+4*d)))
	}
	order := int64(mla.MetricWidth(m.Hidden, int(kv), int(rank)))
	metrics := 8*(2*heads*order*order+d*d+int64(calibrate.Finalists+2)*(q*order+2*order*order+2*q*rank)) +
		4*min(t, int64(o.StatisticsTokens))*(q+2*kv+order) + int64(calibrate.Finalists)*4*a +
		2*(8*(heads*rope*d+rank*d+2*q*rank)+4*a) +
		2*8*mla.FlatWindows*int64(p.Recipe.Context)*(2*rope+w+4) + 8*int64(p.Recipe.Context)*heads
	refit := 8 * (2*(q+1)*(q+1) + 2*(q+1)*d)
	fitting := 8*(t+others)*d + 4*l*a + 4*held*d + 8*d*(2*q+2*kv) + max(4*t*5*d+max(metrics, 4*t*(d+q)+refit), 8*others*d) + forward
	if o.Polish.Steps > 0 {
		together := min(int64(o.Polish.Layers), l)
		// The converted stream before the layers, the source's behind each of them and behind those before.
		behind := (1 + together + (l-1)/together) * see * d
		if others > 0 {
			behind += t * d
		}
		fitting += 4 * behind
		phase("polishing", together, 4*(2*(t+others)*d+behind+l*a+5*together*a+passes(int64(window), together))+forward)
	}
	phase("fitting", 1, fitting)
	if r := int64(p.Target.Rank); !p.Target.Bias {
		n := min(t, int64(o.Neutral.Tokens)*5/4)
		phase("neutralising", 1, 4*t*(8*d+q+r)+4*l*a+8*(n*(2*d+3*r)+24*r*d+3*d*d)+forward)
	}
	for _, correction := range o.Distill {
		length, _ := correction.Texts(window, m.Context)
		ends := (l + int64(o.Polish.Layers) - 1) / int64(o.Polish.Layers)
		see := see
		if correction.Windows > 1 {
			see = int64(tokens.texts + tokens.heldTexts)
		}
		phase("correcting", l, 4*(6*l*a+(1+ends)*see*d+passes(int64(length), l))+logits+forward)
	}
	return out
}

// Schedule returns how the conversion is best carried out: as many layers at once as wanted, or than there are, and all else
// as fast as can be, but no more than fits into limit bytes (0 means no limit). If nothing does, it is an error that says what
// would.
func (p *Plan) Schedule(wanted int, limit int64) (Schedule, error) {
	s := Schedule{Jobs: max(1, min(wanted, p.Source.Layers))}
	limit, allowed := int64(float64(limit)*(1-margin)), limit
	if limit == 0 || p.PeakMemory(s) <= limit {
		return s, nil
	}
	// What costs least comes first. A calibration and the writing that follows it do not add up.
	var ways []Schedule
	if c := p.Recipe.Calibration; c != nil {
		lean := Schedule{InFlight: c.Window}
		ways = append(ways, lean)
		if c.Effort != calibrate.Fast {
			lean.Recompute = true
			ways = append(ways, lean)
		}
		lean.Release = true
		ways = append(ways, lean)
		if c.Source == CalibrationSelf {
			window, windows := calibrate.Windows(c.Tokens, c.Window, p.Source.Context)
			batch, _, _ := calibrate.SampleShape(window, windows, p.Source.Context, 8*p.Source.Layers*p.Source.KVHeads*p.Source.HeadDim)
			for together := batch / 2; together > 0; together /= 2 {
				lean.Together = together
				ways = append(ways, lean)
			}
		}
	}
	ways = append([]Schedule{{}}, ways...)
	for _, way := range ways {
		for way.Jobs = s.Jobs; way.Jobs > 0; way.Jobs-- {
			if p.PeakMemory(way) <= limit {
				return way, nil
			}
		}
	}
	least := ways[len(ways)-1]
	least.Jobs = 1
	err := &checkpoint.Error{
		Kind: checkpoint.NoSpace, Got: ui.FormatSize(allowed) + " of memory", Want: ui.FormatSize(int64(float64(p.PeakMemory(least))/(1-margin))) + " for one layer at a time",
		Hint: "allow more with --memory",
	}
	if c := p.Recipe.Calibration; c != nil {
		err.Hint += ", or use fewer --calibration-tokens"
		fast, quick := *p, *c
		quick.Effort = calibrate.Fast
		fast.Recipe.Calibration = &quick
		if need := fast.PeakMemory(least); need < p.PeakMemory(least) {
			err.Hint += " or --effort fast, which needs " + ui.FormatSize(need)
		}
	}
	return Schedule{}, err
}
