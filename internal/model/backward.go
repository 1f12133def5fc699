package model

import (
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/vec"
)

// MLAGradient holds the derivative of a loss by the weights of an [MLA] that has no latent norm, in the weights' shapes.
type MLAGradient struct {
	Q, KVDown, KVUp, O, OBias []float32
}

// NewMLAGradient returns a zero gradient for a.
func NewMLAGradient(a *MLA) *MLAGradient {
	return &MLAGradient{
		Q:      make([]float32, a.Q.Out*a.Q.In),
		KVDown: make([]float32, a.KVDown.Out*a.KVDown.In),
		KVUp:   make([]float32, a.KVUp.Out*a.KVUp.In),
		O:      make([]float32, a.O.Out*a.O.In),
		OBias:  make([]float32, a.O.Out),
	}
}

// Pass is one forward pass of an [MLA] over a batch, kept for the way back. It holds all its tokens' queries, keys and
// values at once, so batches should be of a few thousand tokens.
type Pass struct {
	attention *MLA
	engine    *blas.Engine
	batch     *Batch
	input     []float32
	states    *mlaStates
	out       []float32 // the heads' outputs, [tokens, Heads*VDim]
}

// Begin runs the attention forward over the normed input h [tokens, hidden], up to the output projection. The attention
// must have no latent norm and float32 weights.
func (a *MLA) Begin(e *blas.Engine, b *Batch, h []float32) *Pass {
	if a.LatentNorm != nil {
		panic("model: backward through a latent norm")
	}
	p := &Pass{attention: a, engine: e, batch: b, input: h, states: a.project(e, b, h), out: make([]float32, b.Tokens()*a.O.In)}
	a.attend(e, b, p.states, p.out)
	return p
}

// Output sets y [tokens, hidden] to the attention's output.
func (p *Pass) Output(y []float32) { p.attention.Output(p.engine, p.batch.Tokens(), p.out, y) }

// Backward adds to g the derivative of a loss whose derivative by the attention's output is dy [tokens, hidden], and,
// where dh is not nil, sets dh to the derivative by the normed input.
//
// Scores are computed again block by block instead of kept (Dao et al. 2022, FlashAttention, section 3.1):
// dS = P * (dP - rowsum(dO * O)).
func (p *Pass) Backward(dy []float32, g *MLAGradient, dh []float32) {
	a, e, b, h, s, out := p.attention, p.engine, p.batch, p.input, p.states, p.out
	n, hidden, dim, kvDim := b.Tokens(), a.O.Out, a.qkDim(), a.NoPEDim+a.VDim
	dout := make([]float32, n*a.O.In)
	a.O.ApplyT(e, n, dy, hidden, 0, dout, a.O.In)
	dq := make([]float32, n*a.Q.Out)
	dk := make([]float32, n*a.Heads*dim)
	dkv := make([]float32, n*a.KVUp.Out)
	e.For(b.Sequences()*a.Heads, func(i int) {
		seq, hd := i/a.Heads, i%a.Heads
		first := b.Starts[seq]
		grad := headGradient{
			q: dq[first*a.Q.Out+hd*dim:], k: dk[first*a.Heads*dim+hd*dim:],
			v: dkv[first*a.KVUp.Out+hd*kvDim+a.NoPEDim:],
		}
		at := first*a.O.In + hd*a.VDim
		a.head(s, first, b.Starts[seq+1]-first, hd).backward(out[at:], dout[at:], a.O.In, &grad)
	})
	e.Sgemm(true, false, hidden, a.O.In, n, 1, dy, hidden, out, a.O.In, 1, g.O, a.O.In)
	for t := range n {
		vec.Axpy(1, dy[t*hidden:(t+1)*hidden], g.OBias)
	}

	// Back from the heads' keys to the latent and the shared rotary key.
	width := a.Rank + a.RopeDim
	dlatent := make([]float32, n*width)
	turn := newRotations(a.Frequencies, b.Longest())
	rotateBatch(e, b, func(token, position int) {
		rope := dlatent[token*width+a.Rank : (token+1)*width]
		for hd := range a.Heads {
			key := dk[(token*a.Heads+hd)*dim : (token*a.Heads+hd+1)*dim]
			copy(dkv[token*a.KVUp.Out+hd*kvDim:], key[:a.NoPEDim])
			vec.Axpy(1, key[a.NoPEDim:], rope)
			turn.back(dq[token*a.Q.Out+hd*dim+a.NoPEDim:], position)
		}
		turn.back(rope, position)
	})
	e.Sgemm(true, false, a.KVUp.Out, a.Rank, n, 1, dkv, a.KVUp.Out, s.latent, width, 1, g.KVUp, a.Rank)
	a.KVUp.ApplyT(e, n, dkv, a.KVUp.Out, 0, dlatent, width)
	e.Sgemm(true, false, width, hidden, n, 1, dlatent, width, h, hidden, 1, g.KVDown, hidden)
	e.Sgemm(true, false, a.Q.Out, hidden, n, 1, dq, a.Q.Out, h, hidden, 1, g.Q, hidden)
	if dh != nil {
		a.Q.ApplyT(e, n, dq, a.Q.Out, 0, dh, hidden)
		a.KVDown.ApplyT(e, n, dlatent, width, 1, dh, hidden)
	}
}

// headGradient is where a head's derivatives go: q, k and v with the row strides of the head's own; k and v zero before.
type headGradient struct{ q, k, v []float32 }

// backward sets g to the derivatives, given the output out [n, dv] and the derivative by it, dout; both have row stride
// ldo.
func (h *head) backward(out, dout []float32, ldo int, g *headGradient) {
	ds := scores.get(min(queryBlock, h.n) * h.n)
	defer scores.put(ds)
	h.eachBlock(func(lo, hi int, p []float32) {
		rows := hi - lo
		serial.Sgemm(false, true, rows, hi, h.dv, 1, dout[lo*ldo:], ldo, h.v, h.ldv, 0, ds, hi)
		for m := range rows {
			at := (lo + m) * ldo
			delta := vec.Dot(dout[at:at+h.dv], out[at:at+h.dv])
			pm, dm := p[m*hi:(m+1)*hi], ds[m*hi:(m+1)*hi]
			for j, v := range pm {
				dm[j] = h.scale * v * (dm[j] - delta)
			}
		}
		serial.Sgemm(false, false, rows, h.dk, hi, 1, ds, hi, h.k, h.ldk, 0, g.q[lo*h.ldq:], h.ldq)
		serial.Sgemm(true, false, hi, h.dk, rows, 1, ds, hi, h.q[lo*h.ldq:], h.ldq, 1, g.k, h.ldk)
		serial.Sgemm(true, false, hi, h.dv, rows, 1, p, hi, dout[lo*ldo:], ldo, 1, g.v, h.ldv)
	})
}

// RMSNormBackward adds to dx the derivative of a loss by the input x [n, len(w)] of [RMSNorm], given that by its output,
// dy: with r = 1/rms(x), dx = r w dy - x r^3 mean(x w dy).
func RMSNormBackward(e *blas.Engine, n int, x, w []float32, eps float64, dy, dx []float32) {
	d := len(w)
	overRows(e, n, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			xi, gi, to := x[i*d:(i+1)*d], dy[i*d:(i+1)*d], dx[i*d:(i+1)*d]
			r := inverseRMS(xi, eps)
			var sum float32
			for j, v := range xi {
				sum += v * w[j] * gi[j]
			}
			c := r * r * r * sum / float32(d)
			for j, v := range xi {
				to[j] += r*w[j]*gi[j] - c*v
			}
		}
	})
}

// MLPPass is one forward pass of a block's MLP, kept for the way back.
type MLPPass struct {
	block    *Block
	x        []float32 // the residual stream before the MLP, [n, hidden]
	gate, up []float32 // [n, intermediate]
}

// BeginMLP adds the MLP's output to the residual stream x [n, hidden], as [Block.ForwardMLP] does. It holds all tokens'
// intermediates at once.
func (b *Block) BeginMLP(e *blas.Engine, n int, x []float32) *MLPPass {
	f := b.MLP.Gate.Out
	p := &MLPPass{block: b, x: append([]float32(nil), x...), gate: make([]float32, n*f), up: make([]float32, n*f)}
	h := make([]float32, len(x))
	RMSNorm(e, n, x, b.MLPNorm, b.Eps, h)
	mid := make([]float32, n*f)
	b.MLP.intermediates(e, n, h, p.gate, p.up, mid)
	b.MLP.Down.Apply(e, n, mid, f, 1, x, b.Hidden)
	return p
}

// Backward turns the derivative dx [n, hidden] of a loss by the block's output into that by the residual stream before
// the MLP (after the attention), in place. The MLP's weights are constants. The pass is used up.
func (p *MLPPass) Backward(e *blas.Engine, dx []float32) {
	b, d, f := p.block, p.block.Hidden, p.block.MLP.Gate.Out
	n := len(p.x) / d
	mid, dh := make([]float32, n*f), make([]float32, n*d)
	b.MLP.Down.ApplyT(e, n, dx, d, 0, mid, f)
	overRows(e, n, func(lo, hi int) {
		siluMulBackward(p.gate[lo*f:hi*f], p.up[lo*f:hi*f], mid[lo*f:hi*f])
	})
	b.MLP.Gate.ApplyT(e, n, p.gate, f, 0, dh, d)
	b.MLP.Up.ApplyT(e, n, p.up, f, 1, dh, d)
	RMSNormBackward(e, n, p.x, b.MLPNorm, b.Eps, dh, dx)
}

// siluMulBackward replaces gate and up by the derivatives by them of a loss whose derivative by silu(gate)*up is d.
func siluMulBackward(gate, up, d []float32) {
	const block = 512
	var buf [block]float32
	for ; len(gate) > 0; gate, up, d = gate[min(block, len(gate)):], up[min(block, len(up)):], d[min(block, len(d)):] {
		n := min(block, len(gate))
		sig := buf[:n]
		for i, g := range gate[:n] {
			sig[i] = -g
		}
		vec.Exp(sig, sig)
		for i, g := range gate[:n] {
			s := 1 / (1 + sig[i])
			silu := g * s
			gate[i] = d[i] * up[i] * (s + silu*(1-s))
			up[i] = d[i] * silu
		}
	}
}
