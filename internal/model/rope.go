package model

import "math"

// rotations holds cos and sin of position*frequency, [positions, pairs].
type rotations struct {
	pairs    int
	cos, sin []float32
}

func newRotations(frequencies []float64, positions int) *rotations {
	r := &rotations{pairs: len(frequencies)}
	r.cos = make([]float32, positions*r.pairs)
	r.sin = make([]float32, positions*r.pairs)
	for p := range positions {
		for i, f := range frequencies {
			s, c := math.Sincos(float64(p) * f)
			r.cos[p*r.pairs+i], r.sin[p*r.pairs+i] = float32(c), float32(s)
		}
	}
	return r
}

// halves turns x [2*pairs] in place to position p, its pairs (i, i+pairs): Llama's layout.
func (r *rotations) halves(x []float32, p int) {
	c, s := r.at(p)
	a, b := x[:r.pairs], x[r.pairs:2*r.pairs]
	for i, u := range a {
		v := b[i]
		a[i] = u*c[i] - v*s[i]
		b[i] = u*s[i] + v*c[i]
	}
}

// interleaved turns x [2*pairs] in place to position p, its pairs (2i, 2i+1): DeepSeek's layout.
func (r *rotations) interleaved(x []float32, p int) {
	c, s := r.at(p)
	for i := range c {
		u, v := x[2*i], x[2*i+1]
		x[2*i] = u*c[i] - v*s[i]
		x[2*i+1] = u*s[i] + v*c[i]
	}
}

// back undoes [rotations.interleaved]; it is its transpose, which the backward pass needs.
func (r *rotations) back(x []float32, p int) {
	c, s := r.at(p)
	for i := range c {
		u, v := x[2*i], x[2*i+1]
		x[2*i] = u*c[i] + v*s[i]
		x[2*i+1] = -u*s[i] + v*c[i]
	}
}

func (r *rotations) at(p int) (cos, sin []float32) {
	return r.cos[p*r.pairs : (p+1)*r.pairs], r.sin[p*r.pairs : (p+1)*r.pairs]
}
