package calibrate

import (
	"math"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
)

// adam is the optimizer of Kingma & Ba 2015 for the weights of one layer, its learning rate for each tensor a share of
// the tensor's standard deviation.
type adam struct {
	tensors []adamTensor
	steps   int
}

type adamTensor struct {
	values, grad  []float32
	first, second []float32
	rate          float32
}

const (
	adamBeta1 = 0.9
	adamBeta2 = 0.98
	adamEps   = 1e-8
)

// newAdam prepares the weights of a for steps along g.
func newAdam(a *model.MLA, g *model.MLAGradient) *adam {
	o := &adam{}
	add := func(values, grad []float32, spread float64) {
		o.tensors = append(o.tensors, adamTensor{
			values: values, grad: grad, rate: float32(spread),
			first: make([]float32, len(values)), second: make([]float32, len(values)),
		})
	}
	add(a.Q.F32, g.Q, spread(a.Q.F32))
	add(a.KVDown.F32, g.KVDown, spread(a.KVDown.F32))
	add(a.KVUp.F32, g.KVUp, spread(a.KVUp.F32))
	add(a.O.F32, g.O, spread(a.O.F32))
	add(a.OBias, g.OBias, spread(a.O.F32))
	return o
}

// reset forgets the gradients seen so far.
func (o *adam) reset() {
	o.steps = 0
	for i := range o.tensors {
		clear(o.tensors[i].first)
		clear(o.tensors[i].second)
	}
}

// spread is the standard deviation of the values.
func spread(values []float32) float64 {
	var sum, squares float64
	for _, v := range values {
		sum += float64(v)
		squares += float64(v) * float64(v)
	}
	n := float64(len(values))
	return math.Sqrt(max(0, squares/n-sum/n*sum/n))
}

// step moves the weights against the gradient by the given share of each tensor's spread and clears the gradient.
func (o *adam) step(e *blas.Engine, share float64) {
	o.steps++
	c1 := 1 / (1 - math.Pow(adamBeta1, float64(o.steps)))
	c2 := 1 / (1 - math.Pow(adamBeta2, float64(o.steps)))
	const chunk = 1 << 14
	for i := range o.tensors {
		t := &o.tensors[i]
		rate := t.rate * float32(share*c1)
		root := float32(math.Sqrt(c2))
		e.For((len(t.values)+chunk-1)/chunk, func(k int) {
			for j := k * chunk; j < min(len(t.values), (k+1)*chunk); j++ {
				g := t.grad[j]
				m := adamBeta1*t.first[j] + (1-adamBeta1)*g
				v := adamBeta2*t.second[j] + (1-adamBeta2)*g*g
				t.first[j], t.second[j], t.grad[j] = m, v, 0
				t.values[j] -= rate * m / (float32(math.Sqrt(float64(v)))*root + adamEps)
			}
		})
	}
}

// schedule is the share of the learning rate at a step: ten steps of warm-up, and behind the given share of the steps down to
// nothing.
func schedule(step, steps int, constant float64) float64 {
	left := (1 - float64(step)/float64(steps)) / (1 - constant)
	return math.Min(1, math.Min(float64(step+1)/10, left))
}
