package mla

import (
	"fmt"
	"math"

	"github.com/mlaconvert/mlaconvert/svd"
)

// Source is one layer of grouped-query attention with rotary halves: pair f of a head is rows f and F+f of its block.
type Source struct {
	Heads, KVHeads, HeadDim int
	// Frequencies are the HeadDim/2 angular frequencies, in radians a token; zeros mean no rotation.
	Frequencies []float64
	// Q is [Heads*HeadDim, d], K and V are [KVHeads*HeadDim, d], O is [d, Heads*HeadDim]. For [Convert] Q and O, most of a
	// layer of grouped queries, may both be missing.
	Q, K, V, O svd.Matrix
}

// Group is the key/value head that query head h uses.
func (s *Source) Group(h int) int { return h / (s.Heads / s.KVHeads) }

// Hidden is d, the width of the attention input.
func (s *Source) Hidden() int { return s.K.Cols }

// Scale multiplies the scores before the softmax: 1/sqrt(HeadDim).
func (s *Source) Scale() float64 { return 1 / math.Sqrt(float64(s.HeadDim)) }

// Pairs is F, the number of rotated pairs of a head.
func (s *Source) Pairs() int { return s.HeadDim / 2 }

// Check reports shapes that do not fit together.
func (s *Source) Check() error { return s.check(true) }

// check is Check, with or without those of Q and O.
func (s *Source) check(whole bool) error {
	d := s.Hidden()
	if s.Heads < 1 || s.KVHeads < 1 || s.Heads%s.KVHeads != 0 || s.HeadDim < 2 || s.HeadDim%2 != 0 {
		return fmt.Errorf("%d heads over %d KV heads of width %d, want a multiple and an even width", s.Heads, s.KVHeads, s.HeadDim)
	}
	if len(s.Frequencies) != s.Pairs() {
		return fmt.Errorf("%d rotary frequencies, want %d", len(s.Frequencies), s.Pairs())
	}
	for _, m := range []struct {
		name       string
		m          svd.Matrix
		rows, cols int
	}{
		{"k", s.K, s.KVHeads * s.HeadDim, d}, {"v", s.V, s.KVHeads * s.HeadDim, d},
		{"q", s.Q, s.Heads * s.HeadDim, d}, {"o", s.O, d, s.Heads * s.HeadDim},
	} {
		if !whole && (m.name == "q" || m.name == "o") {
			continue
		}
		if m.m.Rows != m.rows || m.m.Cols != m.cols {
			return fmt.Errorf("%s is %d x %d, want %d x %d", m.name, m.m.Rows, m.m.Cols, m.rows, m.cols)
		}
	}
	return nil
}

// badRank says that a latent of so many rows is none.
func badRank(rank, least int) error {
	return fmt.Errorf("latent of rank %d, want %d or more", rank, least)
}

// headRows is head h's block of a matrix whose rows are heads of the given width.
func headRows(m svd.Matrix, h, width int) svd.Matrix {
	return m.Slice(h*width, (h+1)*width, 0, m.Cols)
}

// headCols is head h's block of a matrix whose columns are heads of the given width.
func headCols(m svd.Matrix, h, width int) svd.Matrix {
	return m.Slice(0, m.Rows, h*width, (h+1)*width)
}

// Attention is one layer of Multi-head Latent Attention without latent norm and without query compression.
type Attention struct {
	Heads, NoPEDim, RopeDim, VDim int
	// Frequencies are the RopeDim/2 frequencies of the rotary pairs, pair s being rows 2s and 2s+1.
	Frequencies []float64
	// QNoPE is [Heads*NoPEDim, d], QRope [Heads*RopeDim, d], KRope [RopeDim, d].
	QNoPE, QRope, KRope svd.Matrix
	// Down is W_DKV [r, d]; UpK is W_UK [Heads*NoPEDim, r]; UpV is W_UV [Heads*VDim, r].
	Down, UpK, UpV svd.Matrix
	// O is [d, Heads*VDim]; Bias, if not nil, is added to the output [d].
	O    svd.Matrix
	Bias []float64
	// Scale multiplies the scores before the softmax: that of the source, 1/sqrt(HeadDim).
	Scale float64
}

// Rank is r, the width of the latent.
func (a *Attention) Rank() int { return a.Down.Rows }

// Hidden is d, the width of the attention input.
func (a *Attention) Hidden() int { return a.Down.Cols }
