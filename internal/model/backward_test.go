package model

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/svd"
)

// TestMLABackward compares directional derivatives with central differences of the float64 reference.
func TestMLABackward(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 1))
	a := randomMLA(r)
	hidden := a.O.Out
	b, h := randomInputs(r, []int{3, queryBlock + 9}, hidden)
	target := make([]float32, len(h)) // loss = <target, output>
	for i := range target {
		target[i] = float32(r.NormFloat64())
	}
	g := NewMLAGradient(a)
	dh := make([]float32, len(h))
	a.Begin(blas.New(2), b, h).Backward(target, g, dh)

	loss := func() float64 {
		sum := 0.0
		ref := reference(a)
		for s := range b.Sequences() {
			lo, hi := b.Starts[s], b.Starts[s+1]
			x := svd.NewMatrix(hi-lo, hidden)
			for i, v := range h[lo*hidden : hi*hidden] {
				x.Data[i] = float64(v)
			}
			for i, v := range ref.Expanded(x).Data {
				sum += v * float64(target[lo*hidden+i])
			}
		}
		return sum
	}
	for _, c := range []struct {
		name         string
		values, grad []float32
	}{
		{"q", a.Q.F32, g.Q}, {"kv down", a.KVDown.F32, g.KVDown}, {"kv up", a.KVUp.F32, g.KVUp},
		{"o", a.O.F32, g.O}, {"o bias", a.OBias, g.OBias}, {"input", h, dh},
	} {
		// A direction near the gradient, with noise, so that the derivative is large and no element is left out.
		norm := 0.0
		for _, v := range c.grad {
			norm += float64(v) * float64(v)
		}
		norm = math.Sqrt(norm / float64(len(c.grad)))
		direction := make([]float64, len(c.grad))
		want := 0.0
		for i, v := range c.grad {
			direction[i] = float64(v)/norm + r.NormFloat64()
			want += direction[i] * float64(v)
		}
		const step = 1.0 / 512
		shifted := func(sign float64) float64 {
			old := append([]float32(nil), c.values...)
			for i := range c.values {
				c.values[i] += float32(sign * step * direction[i])
			}
			l := loss()
			copy(c.values, old)
			return l
		}
		got := (8*(shifted(1)-shifted(-1)) - (shifted(2) - shifted(-2))) / (12 * step)
		if math.Abs(got-want) > 1e-4*math.Abs(want) {
			t.Errorf("%s: derivative %g, by differences %g", c.name, want, got)
		}
	}
}

// TestBlockBackward checks the MLP and both norms by differences of the float32 forward pass.
func TestBlockBackward(t *testing.T) {
	const hidden, width, n = 12, 20, 70
	r := rand.New(rand.NewPCG(12, 1))
	b := &Block{
		Hidden: hidden, Eps: 1e-5, MLPNorm: randomWeight(r, 1, hidden).F32,
		MLP: MLP{Gate: randomWeight(r, width, hidden), Up: randomWeight(r, width, hidden), Down: randomWeight(r, hidden, width)},
	}
	_, x := randomInputs(r, []int{n}, hidden)
	_, target := randomInputs(r, []int{n}, hidden)
	dx := append([]float32(nil), target...)
	e, y := blas.New(2), append([]float32(nil), x...)
	pass := b.BeginMLP(e, n, y)
	forward := append([]float32(nil), x...)
	b.ForwardMLP(e, n, forward)
	for i, v := range forward {
		if y[i] != v {
			t.Fatalf("element %d: %g kept for the way back, %g otherwise", i, y[i], v)
		}
	}
	pass.Backward(e, dx)
	loss := func(x []float32) float64 {
		y := append([]float32(nil), x...)
		b.ForwardMLP(serial, n, y)
		sum := 0.0
		for i, v := range y {
			sum += float64(v) * float64(target[i])
		}
		return sum
	}
	for range 20 {
		want, step := 0.0, 1e-2
		up, down := append([]float32(nil), x...), append([]float32(nil), x...)
		for i, g := range dx {
			d := r.NormFloat64() + float64(g)
			up[i] += float32(step * d)
			down[i] -= float32(step * d)
			want += float64(g) * d
		}
		got := (loss(up) - loss(down)) / (2 * step)
		if math.Abs(got-want) > 3e-3*math.Abs(want) {
			t.Errorf("derivative %g, by differences %g", want, got)
		}
	}
}
