package model

import (
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/vec"
)

// Attention is the attention of one layer, between the input norm and the residual sum.
type Attention interface {
	// Forward sets y [tokens, hidden] to the attention output for the normed input h [tokens, hidden].
	Forward(e *blas.Engine, b *Batch, h, y []float32)
}

// Block is one decoder layer: x += attention(norm(x)); x += mlp(norm(x)).
type Block struct {
	Hidden            int
	Eps               float64
	AttnNorm, MLPNorm []float32
	Attention         Attention
	MLP               MLP
	release           func()
}

// Close lets the mapped weights' pages go. The block must not be used after it.
func (b *Block) Close() {
	if b.release != nil {
		b.release()
	}
}

// Forward replaces the residual stream x [tokens, hidden] by the layer's output.
func (b *Block) Forward(e *blas.Engine, batch *Batch, x []float32) {
	n := batch.Tokens()
	h := make([]float32, n*b.Hidden)
	y := make([]float32, n*b.Hidden)
	RMSNorm(e, n, x, b.AttnNorm, b.Eps, h)
	b.Attention.Forward(e, batch, h, y)
	Add(e, x, y)
	b.ForwardMLP(e, n, x)
}

// ForwardMLP adds the MLP's output to the residual stream x [n, hidden].
func (b *Block) ForwardMLP(e *blas.Engine, n int, x []float32) {
	d := b.Hidden
	chunk := b.MLP.chunk()
	h := make([]float32, min(n, chunk)*d)
	for lo := 0; lo < n; lo += chunk {
		rows := min(n, lo+chunk) - lo
		xs := x[lo*d : (lo+rows)*d]
		RMSNorm(e, rows, xs, b.MLPNorm, b.Eps, h)
		b.MLP.addTo(e, rows, h, xs)
	}
}

// Add sets x += y.
func Add(e *blas.Engine, x, y []float32) {
	inChunks(e, len(x), func(lo, hi int) { vec.Axpy(1, y[lo:hi], x[lo:hi]) })
}

// inChunks calls f for parts of n elements, in parallel.
func inChunks(e *blas.Engine, n int, f func(lo, hi int)) {
	const step = 1 << 14
	e.For((n+step-1)/step, func(i int) { f(i*step, min(n, (i+1)*step)) })
}

// MLP is the gated feed-forward network down(silu(gate h) * up h) (Shazeer 2020, SwiGLU).
type MLP struct{ Gate, Up, Down Weight }

// chunk is how many tokens go through at once, so that the two intermediates stay near 64 MiB.
func (m *MLP) chunk() int { return max(128, min(4096, 8<<20/m.Gate.Out)) }

// addTo adds the output for h [n, hidden] to y [n, hidden].
func (m *MLP) addTo(e *blas.Engine, n int, h, y []float32) {
	f := m.Gate.Out
	gate, up := make([]float32, n*f), make([]float32, n*f)
	m.intermediates(e, n, h, gate, up, gate)
	m.Down.Apply(e, n, gate, f, 1, y, m.Down.Out)
}

// intermediates sets gate, up and mid = silu(gate)*up [n, intermediate] for h [n, hidden]; mid may be gate.
func (m *MLP) intermediates(e *blas.Engine, n int, h, gate, up, mid []float32) {
	f := m.Gate.Out
	m.Gate.Apply(e, n, h, m.Gate.In, 0, gate, f)
	m.Up.Apply(e, n, h, m.Up.In, 0, up, f)
	overRows(e, n, func(lo, hi int) {
		vec.SiLUMul(mid[lo*f:hi*f], gate[lo*f:hi*f], up[lo*f:hi*f])
	})
}
