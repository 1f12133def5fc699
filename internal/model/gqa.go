package model

import "github.com/mlaconvert/mlaconvert/internal/blas"

// GQA is grouped-query attention with rotary halves (Ainslie et al. 2023); KVHeads == Heads is multi-head attention.
type GQA struct {
	Heads, KVHeads, HeadDim int
	Frequencies             []float64
	Q, K, V, O              Weight
}

// Projected is the queries [tokens, Heads*HeadDim], keys and values [tokens, KVHeads*HeadDim] of a batch. Q and K are
// as projected, before the rotation, until [Projected.Rotate].
type Projected struct {
	attention *GQA
	batch     *Batch
	Q, K, V   []float32
}

// Project computes the queries, keys and values of the normed input h [tokens, hidden], not yet rotated.
func (a *GQA) Project(e *blas.Engine, b *Batch, h []float32) *Projected {
	n := b.Tokens()
	p := &Projected{
		attention: a, batch: b,
		Q: make([]float32, n*a.Q.Out), K: make([]float32, n*a.K.Out), V: make([]float32, n*a.V.Out),
	}
	a.Q.Apply(e, n, h, a.Q.In, 0, p.Q, a.Q.Out)
	a.K.Apply(e, n, h, a.K.In, 0, p.K, a.K.Out)
	a.V.Apply(e, n, h, a.V.In, 0, p.V, a.V.Out)
	return p
}

// Rotate turns queries and keys to their positions, in place.
func (p *Projected) Rotate(e *blas.Engine) {
	turn := newRotations(p.attention.Frequencies, p.batch.Longest())
	dim := p.attention.HeadDim
	rotateBatch(e, p.batch, func(token, position int) {
		for _, x := range [][]float32{
			p.Q[token*p.attention.Q.Out : (token+1)*p.attention.Q.Out],
			p.K[token*p.attention.K.Out : (token+1)*p.attention.K.Out],
		} {
			for ; len(x) > 0; x = x[dim:] {
				turn.halves(x, position)
			}
		}
	})
}

// rotateBatch calls f for every token with its position in its sequence.
func rotateBatch(e *blas.Engine, b *Batch, f func(token, position int)) {
	for s := range b.Sequences() {
		start := b.Starts[s]
		overRows(e, b.Starts[s+1]-start, func(lo, hi int) {
			for p := lo; p < hi; p++ {
				f(start+p, p)
			}
		})
	}
}

// head is the attention of head h over sequence s.
func (p *Projected) head(s, h int) *head {
	a, start := p.attention, p.batch.Starts[s]
	g := h / (a.Heads / a.KVHeads)
	return &head{
		n: p.batch.Starts[s+1] - start, dk: a.HeadDim, dv: a.HeadDim,
		q: p.Q[start*a.Q.Out+h*a.HeadDim:], k: p.K[start*a.K.Out+g*a.HeadDim:], v: p.V[start*a.V.Out+g*a.HeadDim:],
		ldq: a.Q.Out, ldk: a.K.Out, ldv: a.V.Out, scale: scaleFor(a.HeadDim),
	}
}

// Probabilities calls visit with the attention of head h over sequence s, in blocks of queries: p holds rows lo to hi-1
// over keys 0 to hi-1, row stride hi. It runs in the calling goroutine; p is valid during the call only.
func (p *Projected) Probabilities(s, h int, visit func(lo, hi int, p []float32)) {
	p.head(s, h).eachBlock(visit)
}

// Forward implements [Attention].
func (a *GQA) Forward(e *blas.Engine, b *Batch, h, y []float32) {
	hidden := a.O.Out
	b.groups(func(lo, hi int) {
		part := b.Slice(lo, hi)
		start := b.Starts[lo]
		n := part.Tokens()
		p := a.Project(e, &part, h[start*hidden:])
		p.Rotate(e)
		out := make([]float32, n*a.O.In)
		e.For(part.Sequences()*a.Heads, func(i int) {
			s, head := i/a.Heads, i%a.Heads
			p.head(s, head).forward(out[part.Starts[s]*a.O.In+head*a.HeadDim:], a.O.In)
		})
		a.O.Apply(e, n, out, a.O.In, 0, y[start*hidden:], hidden)
	})
}
