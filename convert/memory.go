package convert

import (
	"github.com/mlaconvert/mlaconvert/internal/calibrate"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/ui"
)

// layerMemory is the peak memory of one layer in work, in bytes: with d the hidden width, q and k the rows of the query
// and of the key projection, s = H*rope the rows of the rotary queries, r the latent rows and n = min(2k, d) the order of
// the joint eigenproblem, in float64
//
//	d (2q + 2k)        the source's Q, K, V, O
//	d (s + rope)       rotary queries and key
//	d (k + 2k + 2k)    position-free keys; the weighted stack of keys and values; the same times the metric
//	2 n^2 + 8 n (r+64) the eigenproblem, with its blocks of vectors and their oversampling
//	3 r d + 2 q r      down-projection with its steps; up-projections of the heads
//	q w + 2 k^2        query covariances of head width w; the real and the complex covariance of the keys
//
// and in float32 the largest tensor of the output. Not all of it is live at one moment: measured on shapes from hidden 512
// to 2048, ranks 64 to 512, grouped and multi-head, the prediction that follows lies 15 to 45 % above the peak.
func (p *Plan) layerMemory() int64 {
	m := p.Source
	d, w := int64(m.Hidden), int64(m.HeadDim)
	q, k := int64(m.Heads)*w, int64(m.KVHeads)*w
	rope := int64(p.Recipe.RopeDim)
	s := int64(m.Heads) * rope
	r := int64(p.ContentRank())
	n := min(2*k, d)
	doubles := d*(2*q+2*k) + d*(s+rope) + 5*d*k + 2*n*n + 8*n*(r+64) + 3*r*d + 2*q*r + q*w + 2*k*k
	var largest int64
	for _, spec := range p.AttentionSpecs() {
		size := int64(4)
		for _, x := range spec.Shape {
			size *= int64(x)
		}
		largest = max(largest, size)
	}
	if !p.Target.Bias {
		// The energy rows: their directions out of a matrix of order d, and the latent with its steps.
		doubles += 4*d*d + 4*d*int64(p.Target.Rank)
	}
	return 8*doubles + largest
}

const (
	// baseMemory is the program itself, its kernels' packing buffers and the pages of the source in flight.
	baseMemory = 32 << 20
	// garbage is how far the heap grows beyond what is live, with GCPercent.
	garbage = 1.2
)

// GCPercent is the garbage collection target that [Plan.PeakMemory] counts on. Collecting often costs nothing here, where
// memory is a few large matrices.
const GCPercent = 20

// PeakMemory predicts the peak resident memory of the conversion with the given number of layers at once, in bytes.
func (p *Plan) PeakMemory(jobs int) int64 {
	live := int64(jobs) * p.layerMemory()
	if p.Recipe.Calibration != nil {
		live += 4 * int64(p.Source.Layers) * p.attentionParameters() // all layers wait to be written
		live = max(live, p.calibrationMemory())
	}
	return baseMemory + int64(garbage*float64(live))
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

// calibrationMemory is the peak memory of a calibration, in bytes: the largest of its phases. With t the tokens of a layer's
// fit and those held out, d the hidden width, H heads of width w with q = H w, c factorizations, f the width of the MLP, v the
// vocabulary, L layers of a weights each,
//
//	sampling    the caches of the sequences side by side, their logits, the source's weights
//	fitting     4 t (8 d + q)            both streams; inputs, outputs and targets of a layer; the heads' outputs
//	            8 (2 H d^2 + 2 c (q + d) d)  the metrics of all heads; keys, values and mean metrics of the c factorizations held
//	            4 t 2 d                  both streams before the layers that are polished together, where they are
//	            4 L a                    the layers converted so far
//	neutralising  4 t (8 d + q + r)      as fitting, with the latents, r wide
//	            8 (n (2 d + 3 r) + 24 r d + 3 d^2)  n tokens of the fit in two coordinates, its latents, the steps of L-BFGS
//	correcting  4 (6 L a + 2 t d)        weights, gradients, two moments, the best state and the next; the embeddings
//	            4 l L (4 d + 4 q + 2 f + ...)  what one sequence of l tokens keeps for the way back
//
// and the buffers of a forward pass: intermediates of the MLP for a chunk of tokens, logits of a slice, queries, keys and
// values of a group.
func (p *Plan) calibrationMemory() int64 {
	m, c := p.Source, p.Recipe.Calibration
	window, windows := calibrate.Windows(c.Tokens, c.Window, m.Context)
	o := calibrate.Preset(c.Effort, m.HeadDim/2, p.Recipe.RopeDim/2)
	t, d, l := int64(windows)*int64(window), int64(m.Hidden), int64(m.Layers)
	heads, w := int64(m.Heads), int64(m.HeadDim)
	q, kv := heads*w, int64(m.KVHeads)*w
	rope := int64(p.Recipe.RopeDim)
	a := p.attentionParameters()
	f, vocab := int64(m.Intermediate), int64(m.Vocab)
	// What a token's attention holds besides: latent, queries, keys, up-projected keys and values, outputs.
	states := int64(p.ContentRank()) + rope + 2*heads*(w+rope) + 2*q + q
	const group, chunk, slice = 4096, 8 << 20, 16 << 20
	forward := 4 * max(3*f*min(t, group, max(128, chunk/f)), states*min(t, group))

	sampling := int64(0)
	if c.Source == CalibrationSelf {
		batch, _, length := calibrate.SampleShape(window, windows, m.Context, 8*m.Layers*m.KVHeads*m.HeadDim)
		sampling = int64(batch)*(8*int64(length)*l*kv+4*(vocab+2*f+4*d)) + p.SourceBytes
	}
	metrics := 8 * (2*heads*d*d + d*d + int64(calibrate.Finalists+2)*2*(q+d)*d)
	refit := 8 * (2*(q+1)*(q+1) + 2*(q+1)*d)
	fitting := 4*t*(7*d) + 4*l*a + 4*int64(heldOut(windows)*window)*d + max(metrics, 4*t*(d+q)+refit) + forward
	if o.Polish.Steps > 0 {
		together := int64(o.Polish.Layers)
		fitting += 4 * t * 2 * d
		fitting = max(fitting, 4*(4*t*d+l*a+5*together*a+int64(window)*together*(4*d+states+2*f))+forward)
	}
	neutralising := int64(0)
	if r := int64(p.Target.Rank); !p.Target.Bias {
		n := min(t, int64(o.Neutral.Tokens)*5/4)
		neutralising = 4*t*(8*d+q+r) + 4*l*a + 8*(n*(2*d+3*r)+24*r*d+3*d*d) + forward
	}
	correcting := int64(0)
	if o.Distill.Steps > 0 {
		kept := int64(window) * l * (4*d + states + 2*f)
		logits := 2 * vocab * min(int64(window), 256, slice/vocab+1)
		correcting = 4*(6*l*a+2*t*d+kept+logits) + p.SourceBytes
	}
	return max(sampling, fitting, neutralising, correcting)
}

// Jobs returns how many layers are best converted at once: as many as wanted, or than there are, but no more than fit into
// limit bytes (0 means no limit). If not even one fits, it is an error.
func (p *Plan) Jobs(wanted int, limit int64) (int, error) {
	jobs := max(1, min(wanted, p.Source.Layers))
	for limit > 0 && jobs > 1 && p.PeakMemory(jobs) > limit {
		jobs--
	}
	if need := p.PeakMemory(jobs); limit > 0 && need > limit {
		return 0, &checkpoint.Error{
			Kind: checkpoint.NoSpace, Got: ui.FormatSize(limit) + " of memory", Want: ui.FormatSize(need) + " for one layer at a time",
			Hint: "allow more with --memory",
		}
	}
	return jobs, nil
}
