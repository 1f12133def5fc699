package model

import (
	"math"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// MLA is Multi-head Latent Attention as stock engines compute it (DeepSeek-V2, arXiv:2405.04434, equations 9-19, without
// query compression), in the expanded form.
type MLA struct {
	Heads, NoPEDim, RopeDim, VDim, Rank int
	// Frequencies are those of the RopeDim/2 interleaved rotary pairs.
	Frequencies []float64
	// Q is [Heads*(NoPEDim+RopeDim), hidden], per head the position-free rows and then the rotary ones.
	Q Weight
	// KVDown is [Rank+RopeDim, hidden]: the latent and then the shared rotary key. KVDownBias is its bias, nil for none.
	KVDown     Weight
	KVDownBias []float32
	// LatentNorm is kv_a_layernorm's weight [Rank], with LatentEps; nil stands for no norm at all.
	LatentNorm []float32
	LatentEps  float64
	// KVUp is [Heads*(NoPEDim+VDim), Rank], per head the position-free key rows and then the value rows.
	KVUp Weight
	// O is [hidden, Heads*VDim]; OBias its bias, nil for none.
	O     Weight
	OBias []float32
	// ScoreFactor multiplies the scores besides 1/sqrt(NoPEDim+RopeDim) (see arch.Rope.ScoreFactor); 0 stands for 1.
	ScoreFactor float64
}

func scaleFor(width int) float32 { return float32(1 / math.Sqrt(float64(width))) }

// qkDim is the width of a head's query and key.
func (a *MLA) qkDim() int { return a.NoPEDim + a.RopeDim }

// mlaStates is what one group of sequences computes on the way: queries and keys [tokens, Heads*qkDim] with the rotary
// part turned, values inside kv.
type mlaStates struct {
	latent []float32 // [tokens, Rank+RopeDim], normed, rotary key turned
	q, k   []float32
	kv     []float32 // [tokens, Heads*(NoPEDim+VDim)]
}

func (a *MLA) project(e *blas.Engine, b *Batch, h []float32) *mlaStates {
	n, dim := b.Tokens(), a.qkDim()
	width := a.Rank + a.RopeDim
	s := &mlaStates{
		latent: make([]float32, n*width),
		q:      make([]float32, n*a.Q.Out), k: make([]float32, n*a.Heads*dim), kv: make([]float32, n*a.KVUp.Out),
	}
	a.Q.Apply(e, n, h, a.Q.In, 0, s.q, a.Q.Out)
	a.KVDown.Apply(e, n, h, a.KVDown.In, 0, s.latent, width)
	turn := newRotations(a.Frequencies, b.Longest())
	rotateBatch(e, b, func(token, position int) {
		row := s.latent[token*width : (token+1)*width]
		for i, v := range a.KVDownBias {
			row[i] += v
		}
		if a.LatentNorm != nil {
			normRow(row[:a.Rank], a.LatentNorm, a.LatentEps, row[:a.Rank])
		}
		turn.interleaved(row[a.Rank:], position)
		for hd := range a.Heads {
			turn.interleaved(s.q[token*a.Q.Out+hd*dim+a.NoPEDim:], position)
		}
	})
	a.KVUp.Apply(e, n, s.latent, width, 0, s.kv, a.KVUp.Out)
	overRows(e, n, func(lo, hi int) {
		for t := lo; t < hi; t++ {
			rope := s.latent[t*width+a.Rank : (t+1)*width]
			for hd := range a.Heads {
				key := s.k[(t*a.Heads+hd)*dim : (t*a.Heads+hd+1)*dim]
				copy(key, s.kv[t*a.KVUp.Out+hd*(a.NoPEDim+a.VDim):][:a.NoPEDim])
				copy(key[a.NoPEDim:], rope)
			}
		}
	})
	return s
}

// head is the attention of head hd over the sequence that begins at token start and has n tokens.
func (a *MLA) head(s *mlaStates, start, n, hd int) *head {
	dim := a.qkDim()
	scale := scaleFor(dim)
	if a.ScoreFactor != 0 {
		scale *= float32(a.ScoreFactor)
	}
	return &head{
		n: n, dk: dim, dv: a.VDim,
		q: s.q[start*a.Q.Out+hd*dim:], k: s.k[start*a.Heads*dim+hd*dim:],
		v:   s.kv[start*a.KVUp.Out+hd*(a.NoPEDim+a.VDim)+a.NoPEDim:],
		ldq: a.Q.Out, ldk: a.Heads * dim, ldv: a.KVUp.Out, scale: scale,
	}
}

// Forward implements [Attention].
func (a *MLA) Forward(e *blas.Engine, b *Batch, h, y []float32) {
	hidden := a.O.Out
	b.groups(func(lo, hi int) {
		part := b.Slice(lo, hi)
		start, n := b.Starts[lo], part.Tokens()
		s := a.project(e, &part, h[start*hidden:])
		out := make([]float32, n*a.O.In)
		a.attend(e, &part, s, out)
		a.Output(e, n, out, y[start*hidden:(start+n)*hidden])
	})
}

// HeadOutputs sets out [tokens, Heads*VDim] to the heads' outputs for the normed input h [tokens, hidden]: the input of
// the output projection.
func (a *MLA) HeadOutputs(e *blas.Engine, b *Batch, h, out []float32) {
	b.groups(func(lo, hi int) {
		part := b.Slice(lo, hi)
		start := b.Starts[lo]
		a.attend(e, &part, a.project(e, &part, h[start*a.O.Out:]), out[start*a.O.In:])
	})
}

func (a *MLA) attend(e *blas.Engine, b *Batch, s *mlaStates, out []float32) {
	e.For(b.Sequences()*a.Heads, func(i int) {
		seq, hd := i/a.Heads, i%a.Heads
		first := b.Starts[seq]
		a.head(s, first, b.Starts[seq+1]-first, hd).forward(out[first*a.O.In+hd*a.VDim:], a.O.In)
	})
}

// Output sets y [n, hidden] to the projection of the heads' outputs out [n, Heads*VDim].
func (a *MLA) Output(e *blas.Engine, n int, out, y []float32) {
	a.O.Apply(e, n, out, a.O.In, 0, y, a.O.Out)
	addBias(e, n, y[:n*a.O.Out], a.OBias)
}

func addBias(e *blas.Engine, n int, y, bias []float32) {
	if bias == nil {
		return
	}
	d := len(bias)
	overRows(e, n, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			for j, v := range bias {
				y[i*d+j] += v
			}
		}
	})
}

// LatentFactors returns the factor 1/rms(latent) of kv_a_layernorm for each of n normed inputs h [n, hidden].
func (a *MLA) LatentFactors(e *blas.Engine, n int, h []float32) []float64 {
	latent := make([]float32, n*a.Rank)
	a.rawLatents(e, n, h, latent)
	factors := make([]float64, n)
	e.For(n, func(t int) {
		sum := 0.0
		for _, v := range latent[t*a.Rank : (t+1)*a.Rank] {
			sum += float64(v) * float64(v)
		}
		factors[t] = 1 / math.Sqrt(sum/float64(a.Rank)+a.LatentEps)
	})
	return factors
}

// SquaredAttention returns, for every token of the normed inputs h [tokens, hidden], the sum over all heads and queries of
// the square of the attention that it receives: what an error of its latent's length costs, to first order.
func (a *MLA) SquaredAttention(e *blas.Engine, b *Batch, h []float32) []float64 {
	received := make([]float64, b.Tokens())
	b.groups(func(lo, hi int) {
		part := b.Slice(lo, hi)
		start := b.Starts[lo]
		s := a.project(e, &part, h[start*a.O.Out:])
		byHead := make([]float64, a.Heads*part.Tokens())
		e.For(part.Sequences()*a.Heads, func(i int) {
			seq, hd := i/a.Heads, i%a.Heads
			first, n := part.Starts[seq], part.Starts[seq+1]-part.Starts[seq]
			sum := byHead[hd*part.Tokens()+first:][:n]
			a.head(s, first, n, hd).eachBlock(func(lo, hi int, p []float32) {
				for m := lo; m < hi; m++ {
					for j, v := range p[(m-lo)*hi : (m-lo)*hi+m+1] {
						sum[j] += float64(v) * float64(v)
					}
				}
			})
		})
		for hd := range a.Heads {
			for t, v := range byHead[hd*part.Tokens() : (hd+1)*part.Tokens()] {
				received[start+t] += v
			}
		}
	})
	return received
}

// rawLatents sets out [n, Rank] to the latents of the normed inputs h [n, hidden] before their norm.
func (a *MLA) rawLatents(e *blas.Engine, n int, h, out []float32) {
	down := a.KVDown
	down.Out = a.Rank // the rows of the rotary key come after
	down.Apply(e, n, h, down.In, 0, out, a.Rank)
	if a.KVDownBias != nil {
		addBias(e, n, out, a.KVDownBias[:a.Rank])
	}
}

// Latents sets out [n, Rank] to the normed latents of the normed inputs h [n, hidden].
func (a *MLA) Latents(e *blas.Engine, n int, h, out []float32) {
	a.rawLatents(e, n, h, out)
	if a.LatentNorm != nil {
		RMSNorm(e, n, out, a.LatentNorm, a.LatentEps, out)
	}
}
