package model

import (
	"fmt"
	"math/rand/v2"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/vec"
)

// Decoder generates tokens with a key/value cache, for several sequences of equal length side by side. It holds every
// layer of a source network.
type Decoder struct {
	net    *Network
	engine *blas.Engine
	blocks []*Block
	turn   *rotations
	// keys and values of a layer are [sequence, KVHead, position, HeadDim]: what a head reads lies together.
	keys, values       [][]float32
	sequences, context int
	length             int
}

// NewDecoder makes room for sequences of up to context tokens. Close it after use.
func NewDecoder(e *blas.Engine, net *Network, sequences, context int) (*Decoder, error) {
	d := &Decoder{net: net, engine: e, sequences: sequences, context: context}
	for layer := range net.Layers {
		b, err := net.Block(layer)
		if err != nil {
			d.Close()
			return nil, err
		}
		d.blocks = append(d.blocks, b)
		a, ok := b.Attention.(*GQA)
		if !ok {
			d.Close()
			return nil, fmt.Errorf("decoding a network of %T layers, want a source network", b.Attention)
		}
		if d.turn == nil {
			d.turn = newRotations(a.Frequencies, context)
		}
		n := sequences * context * a.K.Out
		d.keys = append(d.keys, make([]float32, n))
		d.values = append(d.values, make([]float32, n))
	}
	return d, nil
}

// Close lets the weights go.
func (d *Decoder) Close() {
	for _, b := range d.blocks {
		b.Close()
	}
	d.blocks = nil
}

// Step feeds one token to every sequence and returns the logits of the next, [sequences, Vocab].
func (d *Decoder) Step(ids []int) ([]float32, error) {
	if len(ids) != d.sequences {
		panic("model: one id for every sequence")
	}
	if d.length == d.context {
		return nil, fmt.Errorf("decoding past the cache of %d tokens", d.context)
	}
	starts := make([]int, len(ids)+1)
	for i := range starts {
		starts[i] = i
	}
	batch := Batch{IDs: ids, Starts: starts}
	x, err := d.net.Embed(&batch)
	if err != nil {
		return nil, err
	}
	n := len(ids)
	h := make([]float32, n*d.net.Hidden)
	y := make([]float32, n*d.net.Hidden)
	for layer, b := range d.blocks {
		RMSNorm(d.engine, n, x, b.AttnNorm, b.Eps, h)
		d.attend(layer, b.Attention.(*GQA), &batch, h, y)
		Add(d.engine, x, y)
		b.ForwardMLP(d.engine, n, x)
	}
	d.length++
	logits := make([]float32, n*d.net.Vocab)
	d.net.Logits(d.engine, n, x, func(lo, m int, part []float32) {
		copy(logits[lo*d.net.Vocab:], part)
	})
	return logits, nil
}

// attend appends the tokens' keys and values to the layer's cache and sets y to the attention output.
func (d *Decoder) attend(layer int, a *GQA, batch *Batch, h, y []float32) {
	n := batch.Tokens()
	p := a.Project(d.engine, batch, h)
	out := make([]float32, n*a.O.In)
	length := d.length + 1
	keys, values := d.keys[layer], d.values[layer]
	w := a.HeadDim
	d.engine.For(n, func(s int) {
		q, k, v := p.Q[s*a.Q.Out:(s+1)*a.Q.Out], p.K[s*a.K.Out:(s+1)*a.K.Out], p.V[s*a.V.Out:(s+1)*a.V.Out]
		for i := 0; i < len(q); i += w {
			d.turn.halves(q[i:], d.length)
		}
		group := a.Heads / a.KVHeads
		weights := scores.get(group * length)
		defer scores.put(weights)
		for g := range a.KVHeads {
			d.turn.halves(k[g*w:], d.length)
			first := (s*a.KVHeads + g) * d.context * w
			copy(keys[first+d.length*w:], k[g*w:(g+1)*w])
			copy(values[first+d.length*w:], v[g*w:(g+1)*w])
			of := g * group * w
			serial.Sgemm(false, true, group, length, w, scaleFor(w), q[of:], w, keys[first:], w, 0, weights, length)
			for i := range group {
				vec.Softmax(weights[i*length : (i+1)*length])
			}
			serial.Sgemm(false, false, group, w, length, 1, weights, length, values[first:], w, 0, out[s*a.O.In+of:], w)
		}
	})
	a.O.Apply(d.engine, n, out, a.O.In, 0, y, d.net.Hidden)
}

// SampleOptions says what a network writes for itself.
type SampleOptions struct {
	Sequences, Length int
	// First is the number of the first sequence, on which, with the seed, the random numbers of each depend.
	First int
	// Start is the first token of every sequence (BOS or the document separator).
	Start int
	Seed  uint64
	// Progress, if set, is called after every position with the number of positions done.
	Progress func(done int)
	// Stop, if set, is asked after every position; an error ends the sampling.
	Stop func() error
}

// ManyRows is the number of tokens from which on products with weights sum in one order; those of fewer sum in another.
const ManyRows = 17

// Sample draws sequences from the network at temperature 1, each beginning with Start, which is included. The same seed
// gives the same ids whatever the number of threads, and sequences the same whatever others are beside them, as long as all
// are at least [ManyRows] or all are fewer.
func Sample(e *blas.Engine, net *Network, o SampleOptions) ([][]int, error) {
	out := make([][]int, o.Sequences)
	d, err := NewDecoder(e, net, o.Sequences, o.Length)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	random := make([]*rand.Rand, o.Sequences)
	ids := make([]int, o.Sequences)
	for s := range out {
		random[s] = rand.New(rand.NewPCG(o.Seed, uint64(o.First+s)))
		ids[s] = o.Start
		out[s] = append(out[s], o.Start)
	}
	for pos := 1; pos < o.Length; pos++ {
		logits, err := d.Step(ids)
		if err != nil {
			return nil, err
		}
		e.For(o.Sequences, func(s int) {
			ids[s] = draw(random[s], logits[s*net.Vocab:(s+1)*net.Vocab])
		})
		for s := range out {
			out[s] = append(out[s], ids[s])
		}
		if o.Progress != nil {
			o.Progress(pos)
		}
		if o.Stop != nil {
			if err := o.Stop(); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// draw picks an index with probability proportional to exp(logit). It replaces the logits by the exponentials.
func draw(r *rand.Rand, logits []float32) int {
	vec.ExpSum(logits, logits, vec.Max(logits))
	// The sum in float64, over the elements in order: what is subtracted below adds up to it.
	sum := 0.0
	for _, v := range logits {
		sum += float64(v)
	}
	left := r.Float64() * sum
	for i, v := range logits {
		left -= float64(v)
		if left < 0 {
			return i
		}
	}
	return len(logits) - 1
}
