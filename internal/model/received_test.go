package model

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/svd"
)

// TestSquaredAttention compares with the softmax of scores that are computed pair by pair in float64.
func TestSquaredAttention(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 1))
	a := randomMLA(r)
	a.ScoreFactor = 1.3
	b, h := randomInputs(r, []int{3, queryBlock + 9, 40}, a.O.Out)
	got := a.SquaredAttention(blas.New(2), b, h)
	ref := reference(a)
	product := func(w svd.Matrix, x []float64) []float64 {
		out := make([]float64, w.Rows)
		for i := range out {
			for j, v := range w.Row(i) {
				out[i] += v * x[j]
			}
		}
		return out
	}
	for s := range b.Sequences() {
		first, n := b.Starts[s], b.Starts[s+1]-b.Starts[s]
		type token struct{ qn, qr, kn, kr []float64 }
		var tokens []token
		for p := range n {
			x := make([]float64, a.O.Out)
			for j, v := range h[(first+p)*a.O.Out : (first+p+1)*a.O.Out] {
				x[j] = float64(v)
			}
			one := token{product(ref.QNoPE, x), product(ref.QRope, x), product(ref.UpK, product(ref.Down, x)), product(ref.KRope, x)}
			turn := func(v []float64) {
				for i, w := range a.Frequencies {
					sin, cos := math.Sincos(w * float64(p))
					v[2*i], v[2*i+1] = v[2*i]*cos-v[2*i+1]*sin, v[2*i]*sin+v[2*i+1]*cos
				}
			}
			turn(one.kr)
			for hd := range a.Heads {
				turn(one.qr[hd*a.RopeDim : (hd+1)*a.RopeDim])
			}
			tokens = append(tokens, one)
		}
		want := make([]float64, n)
		for hd := range a.Heads {
			for m := range n {
				p, sum := make([]float64, m+1), 0.0
				for j := range p {
					score := 0.0
					for i := range a.NoPEDim {
						score += tokens[m].qn[hd*a.NoPEDim+i] * tokens[j].kn[hd*a.NoPEDim+i]
					}
					for i := range a.RopeDim {
						score += tokens[m].qr[hd*a.RopeDim+i] * tokens[j].kr[i]
					}
					p[j] = math.Exp(score * a.ScoreFactor / math.Sqrt(float64(a.qkDim())))
					sum += p[j]
				}
				for j, v := range p {
					want[j] += v * v / (sum * sum)
				}
			}
		}
		for p, w := range want {
			if math.Abs(got[first+p]-w) > 1e-5*(1+w) {
				t.Fatalf("sequence %d, token %d: got %g, want %g", s, p, got[first+p], w)
			}
		}
	}
}
