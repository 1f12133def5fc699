package mla

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/optimize"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/svd"
)

// EnergyTokens are inputs of a layer's attention that a latent's energy is fitted to or judged on.
type EnergyTokens struct {
	// Inputs is X [n, d], a normed input in each row; Weights [n] says how much each counts.
	Inputs  svd.Matrix
	Weights []float64
}

// EnergyOptions configures [FitEnergy].
type EnergyOptions struct {
	// Down is the down-projection D [r, d] of the content.
	Down svd.Matrix
	// Gamma [d] is the weight of the input norm: |x/gamma|^2 is d for every input, but for the norm's epsilon.
	Gamma []float64
	// Rows is the width of the latent, at least the rank of Down; what the content leaves becomes energy rows, no more than
	// there are directions.
	Rows int
	// Train is fitted, Hold decides. Inputs of zero, whose energy is zero for every latent, are left out. Without others the
	// inputs are taken to be uniform on the sphere |x/gamma|^2 = d.
	Train, Hold EnergyTokens
	// Steps bounds the iterations.
	Steps  int
	Engine *blas.Engine
}

// Energy is a latent whose length hardly depends on the input: an RMSNorm of it is nearly a constant factor.
type Energy struct {
	// Latent is T [min(Rows, d), d], scaled so that 1/|T x| is 1 on average. Its first rows span the content's row space, the others
	// are energy rows.
	Latent svd.Matrix
	// Content is B [r, min(Rows, d)]: D = B T.
	Content svd.Matrix
	// Fluctuation is the weighted relative standard deviation of 1/|T x| over the tokens held out.
	Fluctuation float64
}

// FitEnergy finds a latent T x of the given width, of which the content D x can be read off linearly, whose energy |T x|^2
// is as constant as it can be made:
//
//	minimise  sum_t w_t (|T x_t|^2 - 1)^2  over T with row space(D) in row space(T).
//
// The norm between the down- and the up-projection divides by |T x|, so what counts is M = T^T T, any positive
// semidefinite form of the given rank whose range holds the content's rows: the content's own basis is as free as the
// energy rows are. In the coordinates z = x/gamma the input norm has made |z|^2 = d, so that M = I/d would be exact. There
// T is [L C; R], C [k, d] an orthonormal basis of the content's rows, L [k, k] and R [e, d] free. The fit starts from the
// form nearest to I/d (R: the leading directions that the content leaves), takes some steps of L-BFGS, then some from a
// pilot u, u^T z = 1 by ridge regression, if that is better than where the former have led, and goes on from the better one
// until the held-out tokens stop gaining.
func FitEnergy(o EnergyOptions) (*Energy, error) {
	down := o.Down.Clone()
	for i := range down.Rows {
		for j, g := range o.Gamma {
			down.Row(i)[j] *= g
		}
	}
	basis, err := rowBasis(o.Engine, down)
	if err != nil {
		return nil, fmt.Errorf("row space of the content: %w", err)
	}
	p := &energyFit{content: basis.Rows, rows: min(o.Rows, down.Cols), d: down.Cols, engine: o.Engine}
	if p.content > o.Rows {
		return nil, fmt.Errorf("a latent of %d rows for content of rank %d", o.Rows, p.content)
	}
	train, hold := newEnergyData(o.Engine, o.Train, o.Gamma, basis), newEnergyData(o.Engine, o.Hold, o.Gamma, basis)
	if train.z.Rows == 0 || hold.z.Rows == 0 {
		x, err := p.completeStart(p.restCovariance(basis))
		if err != nil {
			return nil, err
		}
		spread, mean := sphereSpread(p.rows, p.d)
		return p.result(energyState{x, spread, mean}, basis, down, o.Gamma)
	}
	p.train, p.hold = train, hold
	complete, err := p.completeStart(p.restCovariance(basis))
	if err != nil {
		return nil, err
	}
	scout := o.Steps / 4
	best := p.minimise(complete, scout)
	if p.rows > p.content {
		pilot, err := p.pilotStart(complete)
		if err != nil {
			return nil, err
		}
		if spread, _ := p.spread(p.hold, pilot); spread < best.spread {
			if other := p.minimise(pilot, scout); other.spread < best.spread {
				best = other
			}
		}
	}
	best = p.minimise(best.x, o.Steps-scout)
	if math.IsNaN(best.spread) || math.IsInf(best.spread, 0) {
		return nil, errors.New("the energy of the latent is not finite")
	}
	return p.result(best, basis, down, o.Gamma)
}

// energyFit is the problem in the coordinates z. Its parameters are L [content, content] and then R [rows-content, d], row
// by row.
type energyFit struct {
	content, rows, d int
	train, hold      *energyData
	engine           *blas.Engine
}

// energyData is the n tokens that are not zero in those coordinates: z [n, d], c = C z [n, content], weights of sum 1.
type energyData struct {
	z, c    svd.Matrix
	weights []float64
}

func newEnergyData(e *blas.Engine, t EnergyTokens, gamma []float64, basis svd.Matrix) *energyData {
	z := t.Inputs.Clone()
	var weights []float64
	sum := 0.0
	for i, w := range t.Weights {
		row := z.Row(len(weights))
		copy(row, z.Row(i))
		for j, g := range gamma {
			if g == 0 {
				row[j] = 0 // and so it was
				continue
			}
			row[j] /= g
		}
		if slices.ContainsFunc(row, func(v float64) bool { return v != 0 }) {
			weights = append(weights, w)
			sum += w
		}
	}
	for i := range weights {
		weights[i] /= sum
	}
	out := &energyData{z: z.Slice(0, len(weights), 0, z.Cols), weights: weights}
	if len(weights) > 0 {
		out.c = svd.Product(e, false, true, out.z, basis)
	}
	return out
}

// parts are the views of L and R in parameters x (or in their gradient).
func (p *energyFit) parts(x []float64) (l, r svd.Matrix) {
	k := p.content
	return svd.Matrix{Rows: k, Cols: k, Stride: max(k, 1), Data: x[:k*k]},
		svd.Matrix{Rows: p.rows - k, Cols: p.d, Stride: p.d, Data: x[k*k:]}
}

// latents returns L c_t and R z_t, [n, content] and [n, rows-content], and their energies.
func (p *energyFit) latents(t *energyData, x []float64) (lc, rz svd.Matrix, energies []float64) {
	l, r := p.parts(x)
	energies = make([]float64, t.z.Rows)
	apply := func(in, w svd.Matrix) svd.Matrix {
		y := svd.NewMatrix(in.Rows, w.Rows)
		if w.Rows > 0 {
			svd.Gemm(p.engine, false, true, 1, in, w, 0, y)
		}
		for i := range energies {
			energies[i] += dot(y.Row(i), y.Row(i))
		}
		return y
	}
	return apply(t.c, l), apply(t.z, r), energies
}

// loss is sum_t w_t (|T z_t|^2 - 1)^2 over the training tokens; gradient, if not nil, receives its derivative.
func (p *energyFit) loss(x, gradient []float64) float64 {
	lc, rz, energies := p.latents(p.train, x)
	sum := 0.0
	for i, v := range energies {
		sum += p.train.weights[i] * (v - 1) * (v - 1)
	}
	if gradient == nil {
		return sum
	}
	gl, gr := p.parts(gradient)
	for i, v := range energies {
		f := 4 * p.train.weights[i] * (v - 1)
		for _, row := range [][]float64{lc.Row(i), rz.Row(i)} {
			for j := range row {
				row[j] *= f
			}
		}
	}
	if gl.Rows > 0 {
		svd.Gemm(p.engine, true, false, 1, lc, p.train.c, 0, gl)
	}
	if gr.Rows > 0 {
		svd.Gemm(p.engine, true, false, 1, rz, p.train.z, 0, gr)
	}
	return sum
}

// spread is the weighted relative standard deviation of 1/|T z| over tokens, and its mean.
func (p *energyFit) spread(t *energyData, x []float64) (spread, mean float64) {
	_, _, energies := p.latents(t, x)
	for i, v := range energies {
		mean += t.weights[i] / math.Sqrt(v)
	}
	for i, v := range energies {
		d := 1/math.Sqrt(v)/mean - 1
		spread += t.weights[i] * d * d
	}
	return math.Sqrt(spread), mean
}

// completeStart is the form nearest to I/d of the given rank: the content's rows and the leading directions of rest, the
// covariance [d, d] of what they leave, all of length d^-1/2.
func (p *energyFit) completeStart(rest svd.Matrix) ([]float64, error) {
	k, e := p.content, p.rows-p.content
	x := make([]float64, k*k+e*p.d)
	l, r := p.parts(x)
	s := 1 / math.Sqrt(float64(p.d))
	for i := range k {
		l.Set(i, i, s)
	}
	if e == 0 {
		return x, nil
	}
	eigen, err := svd.TopEigen(rest, e, svd.Options{Engine: p.engine})
	if err != nil {
		return nil, fmt.Errorf("directions of the energy rows: %w", err)
	}
	for i := range e {
		for j := range p.d {
			r.Set(i, j, s*eigen.Vectors.At(j, i))
		}
	}
	return x, nil
}

// restCovariance is the covariance [d, d] of what the content's rows leave of the training tokens, or of the sphere.
func (p *energyFit) restCovariance(basis svd.Matrix) svd.Matrix {
	if p.train == nil {
		rest := svd.NewMatrix(p.d, p.d)
		for i := range p.d {
			rest.Set(i, i, 1)
		}
		svd.Gemm(p.engine, true, false, -1, basis, basis, 1, rest)
		return rest
	}
	left := p.train.z.Clone()
	svd.Gemm(p.engine, false, false, -1, p.train.c, basis, 1, left)
	return weightedGram(p.engine, left, p.train.weights)
}

// weightedGram is sum_t w_t x_t x_t^T over the rows of x.
func weightedGram(e *blas.Engine, x svd.Matrix, weights []float64) svd.Matrix {
	weighted := x.Clone()
	for i, w := range weights {
		row := weighted.Row(i)
		for j := range row {
			row[j] *= w
		}
	}
	return svd.Product(e, true, false, x, weighted)
}

// pilotRidges are the shares of the mean variance that the pilot's regression tries.
var pilotRidges = []float64{1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1}

// pilotStart is the complete start with a pilot in place of its last energy row: u with u^T z = 1 by ridge regression.
func (p *energyFit) pilotStart(complete []float64) ([]float64, error) {
	t := p.train
	gram := weightedGram(p.engine, t.z, t.weights)
	right := svd.NewMatrix(p.d, 1)
	for i, w := range t.weights {
		for j, v := range t.z.Row(i) {
			right.Data[j] += w * v
		}
	}
	mean := trace(gram) / float64(p.d)
	x := append([]float64(nil), complete...)
	last := x[len(x)-p.d:]
	least := math.Inf(1)
	for _, ridge := range pilotRidges {
		u, err := svd.SolveSPD(p.engine, gram, ridge*mean, right)
		if errors.Is(err, svd.ErrNotPositive) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("pilot direction: %w", err)
		}
		var sum, squares float64
		for i, w := range p.hold.weights {
			v := dot(p.hold.z.Row(i), u.Data)
			sum += w * v
			squares += w * v * v
		}
		if f := squares/(sum*sum) - 1; f < least {
			least = f
			copy(last, u.Data)
		}
	}
	return x, nil
}

// energyState is parameters with what the held-out tokens say of them.
type energyState struct {
	x            []float64
	spread, mean float64
}

const (
	// energyCheck is how many iterations lie between two looks at the held-out tokens.
	energyCheck = 5
	// energyGain is the relative gain, over a look, below which the fit is not worth going on, and energyPatience how many
	// such looks in a row end it.
	energyGain     = 5e-3
	energyPatience = 3
	// energyExact is the fluctuation below which there is nothing to gain: float32 holds no more.
	energyExact = 1e-7
)

// minimise takes up to steps iterations of L-BFGS (Nocedal 1980) from x and returns the state that served the held-out
// tokens best.
func (p *energyFit) minimise(x []float64, steps int) energyState {
	best := energyState{x: append([]float64(nil), x...)}
	best.spread, best.mean = p.spread(p.hold, x)
	if steps == 0 || best.spread < energyExact {
		return best
	}
	idle := 0
	look := func(x []float64) optimize.Status {
		spread, mean := p.spread(p.hold, x)
		if spread > (1-energyGain)*best.spread {
			idle++
		} else {
			idle = 0
		}
		if spread < best.spread {
			best.spread, best.mean = spread, mean
			copy(best.x, x)
		}
		if idle == energyPatience || best.spread < energyExact {
			return optimize.FunctionConvergence
		}
		return optimize.NotTerminated
	}
	// The line search asks for the value and the gradient at the same point one after the other.
	var at, gradient []float64
	var value float64
	evaluate := func(x []float64) {
		if at != nil && slices.Equal(at, x) {
			return
		}
		if gradient == nil {
			gradient = make([]float64, len(x))
		}
		value = p.loss(x, gradient)
		at = append(at[:0], x...)
	}
	problem := optimize.Problem{
		Func: func(x []float64) float64 {
			evaluate(x)
			return value
		},
		Grad: func(g, x []float64) {
			evaluate(x)
			copy(g, gradient)
		},
	}
	// An error of the line search (no descent is left in rounding) leaves the best state, which is the result.
	_, _ = optimize.Minimize(problem, x, &optimize.Settings{MajorIterations: steps, Converger: &energyConverger{look: look}}, &optimize.LBFGS{Store: 8})
	return best
}

// energyConverger looks at the held-out tokens every [energyCheck] iterations.
type energyConverger struct {
	look  func(x []float64) optimize.Status
	count int
}

// Init implements [optimize.Converger].
func (c *energyConverger) Init(int) { c.count = 0 }

// Converged implements [optimize.Converger]; it is called after every major iteration.
func (c *energyConverger) Converged(l *optimize.Location) optimize.Status {
	if c.count++; c.count%energyCheck != 0 {
		return optimize.NotTerminated
	}
	return c.look(l.X)
}

// result turns parameters into matrices on x. L = U S V^T is replaced by S V^T, which leaves the energy as it is: so a
// rounding error of a latent's element is relative to what the content has in that direction.
func (p *energyFit) result(s energyState, basis, down svd.Matrix, gamma []float64) (*Energy, error) {
	l, r := p.parts(s.x)
	out := &Energy{
		Latent: svd.NewMatrix(p.rows, p.d), Content: svd.NewMatrix(down.Rows, p.rows), Fluctuation: s.spread,
	}
	if p.content > 0 {
		t, err := svd.Truncate(l, p.content, svd.Options{Engine: p.engine})
		if err != nil {
			return nil, fmt.Errorf("basis of the content: %w", err)
		}
		// S V^T C on top; B = D C^T V S^-1.
		rows := svd.Product(p.engine, true, false, t.V, basis)
		back := svd.Product(p.engine, false, false, svd.Product(p.engine, false, true, down, basis), t.V)
		for i, v := range t.S {
			if v < 1e-9*t.S[0] {
				return nil, fmt.Errorf("the fit has lost the content: singular value %d is %g of the first", i, v/t.S[0])
			}
			for j, u := range rows.Row(i) {
				out.Latent.Set(i, j, s.mean*v*u)
			}
			for j := range down.Rows {
				out.Content.Set(j, i, back.At(j, i)/(s.mean*v))
			}
		}
	}
	for i := range r.Rows {
		for j, v := range r.Row(i) {
			out.Latent.Set(p.content+i, j, s.mean*v)
		}
	}
	for i := range out.Latent.Rows {
		row := out.Latent.Row(i)
		for j, g := range gamma {
			if g == 0 {
				row[j] = 0
				continue
			}
			row[j] /= g
		}
	}
	return out, nil
}

// sphereSpread is the relative standard deviation of 1/|P z| and its mean, P a projection to rows dimensions and z uniform on
// the unit sphere in d: b = |P z|^2 is Beta(rows/2, (d-rows)/2) there, with
//
//	E[1/b] = (d-2)/(rows-2),   E[b^-1/2] = G(d/2) G((rows-1)/2) / (G((d-1)/2) G(rows/2)).
//
// With two rows or fewer the former is infinite, and half the relative deviation of b stands for the spread.
func sphereSpread(rows, d int) (spread, mean float64) {
	r, n := float64(max(rows, 1)), float64(d)
	if rows <= 2 {
		return math.Sqrt(max(0, 2*(n-r)/(r*(n+2)))) / 2, math.Sqrt(n / r)
	}
	logGamma := func(x float64) float64 {
		v, _ := math.Lgamma(x)
		return v
	}
	mean = math.Exp(logGamma(n/2) + logGamma((r-1)/2) - logGamma((n-1)/2) - logGamma(r/2))
	return math.Sqrt(max(0, (n-2)/(r-2)/(mean*mean)-1)), mean
}

// rowBasis is an orthonormal basis [k, d] of the row space of a.
func rowBasis(e *blas.Engine, a svd.Matrix) (svd.Matrix, error) {
	eigen, err := svd.EigSym(svd.Product(e, false, true, a, a), svd.Options{Engine: e})
	if err != nil {
		return svd.Matrix{}, err
	}
	k := 0
	for k < len(eigen.Values) && eigen.Values[k] > 1e-13*eigen.Values[0] {
		k++
	}
	u := svd.Product(e, true, false, eigen.Vectors.Slice(0, a.Rows, 0, k), a)
	for range 2 { // Cholesky QR twice: the second time cleans up after the first
		l, _, ok := svd.Cholesky(e, svd.Product(e, false, true, u, u))
		if !ok {
			return svd.Matrix{}, svd.ErrNotPositive
		}
		svd.SolveLower(e, l, false, u)
	}
	return u, nil
}

// WithEnergy returns the attention with the latent of en in place of its own: what it computes is the same for a norm that
// divides by |T x|, where that is constant.
func (a *Attention) WithEnergy(e *blas.Engine, en *Energy) *Attention {
	out := *a
	out.Down = en.Latent
	out.UpK = svd.Product(e, false, false, a.UpK, en.Content)
	out.UpV = svd.Product(e, false, false, a.UpV, en.Content)
	return &out
}
