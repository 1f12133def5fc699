package model

import (
	"math"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/vec"
)

// Divergence returns the sum over rows of KL(p || q), in nats: p and q are the next-token distributions of the residual
// streams want and got [rows, Hidden]. With a soft above zero a row counts soft*log(1 + KL/soft) instead, so that the few
// tokens on which the two disagree altogether do not drown the others. If dx is not nil, the derivative by got is added to
// it: through the softmax it is q - p in the logits.
func (n *Network) Divergence(e *blas.Engine, rows int, want, got []float32, soft float64, dx []float32) float64 {
	d, vocab := n.Hidden, n.Vocab
	step := min(rows, logitRows(vocab))
	h := make([]float32, step*d)
	p, q := make([]float32, step*vocab), make([]float32, step*vocab)
	losses := make([]float64, rows)
	for lo := 0; lo < rows; lo += step {
		m := min(step, rows-lo)
		RMSNorm(e, m, want[lo*d:(lo+m)*d], n.finalNorm, n.NormEps, h)
		n.head.Apply(e, m, h, d, 0, p, vocab)
		RMSNorm(e, m, got[lo*d:(lo+m)*d], n.finalNorm, n.NormEps, h)
		n.head.Apply(e, m, h, d, 0, q, vocab)
		e.For(m, func(i int) {
			derivative := q[i*vocab : (i+1)*vocab]
			kl := klRow(p[i*vocab:(i+1)*vocab], derivative)
			losses[lo+i] = kl
			if soft > 0 {
				losses[lo+i] = soft * math.Log1p(kl/soft)
				vec.Scale(float32(1/(1+kl/soft)), derivative)
			}
		})
		if dx == nil {
			continue
		}
		n.head.ApplyT(e, m, q, vocab, 0, h, d)
		RMSNormBackward(e, m, got[lo*d:(lo+m)*d], n.finalNorm, n.NormEps, h, dx[lo*d:(lo+m)*d])
	}
	sum := 0.0
	for _, v := range losses {
		sum += v
	}
	return sum
}

// klRow takes two rows of logits, returns KL(softmax(p) || softmax(q)) and replaces q by softmax(q) - softmax(p). p is
// scratch afterwards. Per token it is the sum of p ((lp - mp) - (lq - mq)), less log zp, plus log zq, with m the largest
// logits and z the sums of the exponentials.
func klRow(p, q []float32) float64 {
	const block = 512
	var buf [2][block]float32
	mp, mq := vec.Max(p), vec.Max(q)
	var zp, zq, weighted float64
	for lo := 0; lo < len(p); lo += block {
		hi := min(len(p), lo+block)
		lp, lq := p[lo:hi], q[lo:hi]
		ep, eq := buf[0][:hi-lo], buf[1][:hi-lo]
		zp += float64(vec.ExpSum(ep, lp, mp))
		zq += float64(vec.ExpSum(eq, lq, mq))
		for i, v := range lp {
			lp[i] = (v - mp) - (lq[i] - mq)
		}
		weighted += vec.DotF64(ep, lp)
		copy(lp, ep)
		copy(lq, eq)
	}
	vec.Scale(float32(1/zq), q)
	vec.Axpy(float32(-1/zp), p, q)
	return weighted/zp - math.Log(zp) + math.Log(zq)
}
