package mla

import (
	"math"

	"github.com/mlaconvert/mlaconvert/svd"
)

// Forward returns the output [n, d] of causal attention over the normed inputs x [n, d] of one sequence. It is written
// for clarity, in float64; internal/model has the fast one.
func (s *Source) Forward(x svd.Matrix) svd.Matrix {
	q, k, v := mulT(x, s.Q), mulT(x, s.K), mulT(x, s.V)
	for n := range x.Rows {
		for h := range s.Heads {
			rotateHalves(q.Row(n)[h*s.HeadDim:(h+1)*s.HeadDim], s.Frequencies, n)
		}
		for g := range s.KVHeads {
			rotateHalves(k.Row(n)[g*s.HeadDim:(g+1)*s.HeadDim], s.Frequencies, n)
		}
	}
	out := svd.NewMatrix(x.Rows, s.Heads*s.HeadDim)
	for h := range s.Heads {
		qh, kh, vh := headCols(q, h, s.HeadDim), headCols(k, s.Group(h), s.HeadDim), headCols(v, s.Group(h), s.HeadDim)
		a := attention(func(m, n int) float64 { return s.Scale() * dot(qh.Row(m), kh.Row(n)) }, x.Rows)
		svd.Gemm(nil, false, false, 1, a, vh, 0, headCols(out, h, s.HeadDim))
	}
	return mulT(out, s.O)
}

// Expanded returns the output [n, d] over the normed inputs x [n, d] of one sequence: keys and values of every head are
// formed from the latent, as in training and prefill.
func (a *Attention) Expanded(x svd.Matrix) svd.Matrix {
	qn, qr, kr := mulT(x, a.QNoPE), mulT(x, a.QRope), mulT(x, a.KRope)
	a.rotate(qr, kr)
	c := mulT(x, a.Down)
	k, v := mulT(c, a.UpK), mulT(c, a.UpV)
	out := svd.NewMatrix(x.Rows, a.Heads*a.VDim)
	for h := range a.Heads {
		qnh, qrh, kh := headCols(qn, h, a.NoPEDim), headCols(qr, h, a.RopeDim), headCols(k, h, a.NoPEDim)
		p := attention(func(m, n int) float64 {
			return a.Scale * (dot(qnh.Row(m), kh.Row(n)) + dot(qrh.Row(m), kr.Row(n)))
		}, x.Rows)
		svd.Gemm(nil, false, false, 1, p, headCols(v, h, a.VDim), 0, headCols(out, h, a.VDim))
	}
	return a.output(out)
}

// Absorbed returns what [Attention.Expanded] returns, computed as in decoding: W_UK goes into the query and W_UV into the
// output, and every head attends to the cached latents themselves.
func (a *Attention) Absorbed(x svd.Matrix) svd.Matrix {
	qn, qr, kr := mulT(x, a.QNoPE), mulT(x, a.QRope), mulT(x, a.KRope)
	a.rotate(qr, kr)
	c := mulT(x, a.Down)
	out := svd.NewMatrix(x.Rows, a.Heads*a.VDim)
	for h := range a.Heads {
		qc := svd.Product(nil, false, false, headCols(qn, h, a.NoPEDim), headRows(a.UpK, h, a.NoPEDim))
		qrh := headCols(qr, h, a.RopeDim)
		p := attention(func(m, n int) float64 {
			return a.Scale * (dot(qc.Row(m), c.Row(n)) + dot(qrh.Row(m), kr.Row(n)))
		}, x.Rows)
		pc := svd.Product(nil, false, false, p, c)
		svd.Gemm(nil, false, true, 1, pc, headRows(a.UpV, h, a.VDim), 0, headCols(out, h, a.VDim))
	}
	return a.output(out)
}

func (a *Attention) rotate(qr, kr svd.Matrix) {
	for n := range qr.Rows {
		for h := range a.Heads {
			rotateInterleaved(qr.Row(n)[h*a.RopeDim:(h+1)*a.RopeDim], a.Frequencies, n)
		}
		rotateInterleaved(kr.Row(n), a.Frequencies, n)
	}
}

func (a *Attention) output(heads svd.Matrix) svd.Matrix {
	y := mulT(heads, a.O)
	for n := range y.Rows {
		for j, b := range a.Bias {
			y.Row(n)[j] += b
		}
	}
	return y
}

// mulT returns x w^T.
func mulT(x, w svd.Matrix) svd.Matrix { return svd.Product(nil, false, true, x, w) }

func dot(x, y []float64) float64 {
	sum := 0.0
	for i, v := range x {
		sum += v * y[i]
	}
	return sum
}

// attention returns the causal softmax [n, n] of the scores of query m and key j <= m.
func attention(score func(m, j int) float64, n int) svd.Matrix {
	p := svd.NewMatrix(n, n)
	for m := range n {
		row := p.Row(m)[:m+1]
		most := math.Inf(-1)
		for j := range row {
			row[j] = score(m, j)
			most = math.Max(most, row[j])
		}
		sum := 0.0
		for j, s := range row {
			row[j] = math.Exp(s - most)
			sum += row[j]
		}
		for j := range row {
			row[j] /= sum
		}
	}
	return p
}

func rotateHalves(x, frequencies []float64, position int) {
	pairs := len(frequencies)
	for f, w := range frequencies {
		x[f], x[pairs+f] = turn(x[f], x[pairs+f], w*float64(position))
	}
}

func rotateInterleaved(x, frequencies []float64, position int) {
	for f, w := range frequencies {
		x[2*f], x[2*f+1] = turn(x[2*f], x[2*f+1], w*float64(position))
	}
}

func turn(re, im, angle float64) (float64, float64) {
	s, c := math.Sincos(angle)
	return re*c - im*s, re*s + im*c
}
