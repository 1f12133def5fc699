package mla

import "math"

// Weights is a distribution of the distance D = m-n >= 0 between a query and a key, in tokens: D has the probability w[D]; the
// weights sum to 1.
type Weights []float64

// phaseBlock is the number of distances between two whose sine and cosine are computed for themselves.
const phaseBlock = 64

// Phase returns E[e^{i w D}]. With D = b n + j, j < n, it is sum_b e^{iwbn} sum_j w[bn+j] e^{iwj}: one table of the inner
// factors serves all blocks.
func (p Weights) Phase(w float64) complex128 {
	var sin, cos [phaseBlock]float64
	for j := range min(phaseBlock, len(p)) {
		sin[j], cos[j] = math.Sincos(w * float64(j))
	}
	var sum complex128
	for first := 0; first < len(p); first += phaseBlock {
		// Two partial sums each, or the additions would wait for one another.
		var re, im, re2, im2 float64
		block := p[first:min(first+phaseBlock, len(p))]
		j := 0
		for ; j+2 <= len(block); j += 2 {
			re += block[j] * cos[j]
			im += block[j] * sin[j]
			re2 += block[j+1] * cos[j+1]
			im2 += block[j+1] * sin[j+1]
		}
		if j < len(block) {
			re += block[j] * cos[j]
			im += block[j] * sin[j]
		}
		s, c := math.Sincos(w * float64(first))
		sum += complex(re+re2, im+im2) * complex(c, s)
	}
	return sum
}

// Within is the distribution with the weight of distance D multiplied by 1 - D/reach, and none beyond reach; w itself for a
// reach of zero, or where nothing is left.
func (p Weights) Within(reach int) Weights {
	if reach <= 0 {
		return p
	}
	out, sum := make(Weights, min(reach, len(p))), 0.0
	for d := range out {
		out[d] = p[d] * (1 - float64(d)/float64(reach))
		sum += out[d]
	}
	if !(sum > 0) {
		return p
	}
	for d := range out {
		out[d] /= sum
	}
	return out
}

// Mixture returns (1-share)*a + share*b, the shorter one continued by zeros.
func Mixture(a, b Weights, share float64) Weights {
	out := make(Weights, max(len(a), len(b)))
	for d, v := range a {
		out[d] += (1 - share) * v
	}
	for d, v := range b {
		out[d] += share * v
	}
	return out
}

// Available is the distribution of the distance between two positions drawn from one window of n tokens, the query not
// before the key: proportional to n-D.
func Available(n int) Weights {
	out := make(Weights, n)
	total := float64(n) * float64(n+1) / 2
	for d := range out {
		out[d] = float64(n-d) / total
	}
	return out
}

// PowerLaw is the distribution over 0 .. n-1 proportional to (1+D)^-exponent: attention of trained models falls about so.
func PowerLaw(n int, exponent float64) Weights {
	out := make(Weights, n)
	sum := 0.0
	for d := range out {
		out[d] = math.Pow(float64(1+d), -exponent)
		sum += out[d]
	}
	for d := range out {
		out[d] /= sum
	}
	return out
}
