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

// calibrationMemory is the peak memory of a calibration, in bytes: with t the tokens, d the hidden width, H heads of width
// w, L layers of a weights each, it is what the layers in turn need,
//
//	4 t (9 d)                the two streams, a layer's inputs, outputs and targets, and the steps between them
//	8 (2 H d^2 + 8 d^2)      the metrics of all heads; those of the layer, factored
//	8 (8 H w d)              keys, values and their weighted stack
//	4 t (2 H w + d)          the refit's rows and residuals
//	4 L a                    the layers converted so far
//
// or what correcting them together does: weights, gradients, two moments and the best state, the source's stream and
// weights, and the activations and logits of a batch.
func (p *Plan) calibrationMemory() int64 {
	m, c := p.Source, p.Recipe.Calibration
	t, d, l := int64(c.Tokens), int64(m.Hidden), int64(m.Layers)
	q := int64(m.Heads) * int64(m.HeadDim)
	a := p.attentionParameters()
	// Intermediates of the MLP for a chunk of tokens, logits of a slice, queries, keys and values of a group.
	f, vocab := int64(m.Intermediate), int64(m.Vocab)
	buffers := 4 * (3*f*min(t, 4096, max(128, 8<<20/f)) + 2*vocab*min(t, 256, 16<<20/vocab+1) + 4*q*min(t, 4096))
	fit := max(8*(2*int64(m.Heads)*d*d+8*d*d+8*q*d), 4*t*(2*q+d))
	need := 4*t*9*d + fit + 4*l*a + buffers
	if c.Effort != calibrate.Fast {
		batch := int64(4 * c.Window)
		need = max(need, 4*(5*l*a+t*d+batch*d*(2*l+8))+p.SourceBytes+buffers)
	}
	return need
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
