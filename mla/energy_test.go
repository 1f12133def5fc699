package mla

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/svd"
)

// energyCase is a content of the given rank and inputs behind a norm of random weight.
type energyCase struct {
	down  svd.Matrix
	gamma []float64
	x     svd.Matrix
}

func newEnergyCase(r *rand.Rand, d, content, tokens int) *energyCase {
	c := &energyCase{down: randomEnergyMatrix(r, content, d), x: randomEnergyMatrix(r, tokens, d), gamma: make([]float64, d)}
	for j := range c.gamma {
		c.gamma[j] = math.Exp(0.3 * r.NormFloat64())
	}
	for i := range tokens {
		row := c.x.Row(i)
		norm := math.Sqrt(dot(row, row) / float64(d))
		for j := range row {
			row[j] *= c.gamma[j] / norm
		}
	}
	return c
}

func randomEnergyMatrix(r *rand.Rand, rows, cols int) svd.Matrix {
	m := svd.NewMatrix(rows, cols)
	for i := range m.Data {
		m.Data[i] = r.NormFloat64()
	}
	return m
}

// tokens are rows lo to hi-1 of x, with weights that differ.
func energyRows(x svd.Matrix, lo, hi int) EnergyTokens {
	t := EnergyTokens{Inputs: x.Slice(lo, hi, 0, x.Cols).Clone(), Weights: make([]float64, hi-lo)}
	for i := range t.Weights {
		t.Weights[i] = 1 + float64(i%3)
	}
	return t
}

// bruteSpread is the definition, written down once more: the weighted relative standard deviation of 1/|T x|, and its mean.
func bruteSpread(latent svd.Matrix, t EnergyTokens) (spread, mean float64) {
	var factors []float64
	var total float64
	for i := range t.Inputs.Rows {
		energy := 0.0
		for k := range latent.Rows {
			c := 0.0
			for j := range latent.Cols {
				c += latent.At(k, j) * t.Inputs.At(i, j)
			}
			energy += c * c
		}
		factors = append(factors, 1/math.Sqrt(energy))
		mean += t.Weights[i] * factors[i]
		total += t.Weights[i]
	}
	mean /= total
	for i, f := range factors {
		spread += t.Weights[i] / total * (f - mean) * (f - mean)
	}
	return math.Sqrt(spread) / mean, mean
}

// checkContent compares B T with D.
func checkContent(t *testing.T, en *Energy, down svd.Matrix) {
	t.Helper()
	got := svd.Product(nil, false, false, en.Content, en.Latent)
	for i := range down.Rows {
		for j, want := range down.Row(i) {
			if math.Abs(got.At(i, j)-want) > 1e-9*(1+math.Abs(want)) {
				t.Fatalf("content %d,%d: got %g, want %g", i, j, got.At(i, j), want)
			}
		}
	}
}

// TestEnergyWholeSpace: with a row for every direction the input norm has done the work already.
func TestEnergyWholeSpace(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	c := newEnergyCase(r, 20, 7, 120)
	for _, o := range []EnergyOptions{
		{Down: c.down, Gamma: c.gamma, Rows: 20},
		{Down: c.down, Gamma: c.gamma, Rows: 31}, // more rows than there is room for
		{Down: c.down, Gamma: c.gamma, Rows: 20, Steps: 10, Train: energyRows(c.x, 0, 80), Hold: energyRows(c.x, 80, 120)},
	} {
		en, err := FitEnergy(o)
		if err != nil {
			t.Fatal(err)
		}
		spread, mean := bruteSpread(en.Latent, energyRows(c.x, 0, 120))
		if spread > 1e-12 || math.Abs(mean-1) > 1e-12 || en.Fluctuation > 1e-12 {
			t.Errorf("fluctuation %g, reported %g, mean factor %g", spread, en.Fluctuation, mean)
		}
		if en.Latent.Rows != 20 {
			t.Errorf("%d rows", en.Latent.Rows)
		}
		checkContent(t, en, c.down)
	}
}

// TestEnergyPlanted: inputs on which a form of the latent's rank is constant, and whose length is anything but. The fit must
// find such a form, and what it reports is what the definition says.
func TestEnergyPlanted(t *testing.T) {
	const d, content, energy, tokens = 24, 6, 3, 1600
	r := rand.New(rand.NewPCG(2, 2))
	c := newEnergyCase(r, d, content, tokens)
	form := randomEnergyMatrix(r, content+energy, d)
	for k := range content { // the content's own rows are part of it, in another basis
		row := form.Row(k)
		clear(row)
		for i := range content {
			f := r.NormFloat64()
			for j, v := range c.down.Row(i) {
				row[j] += f * v
			}
		}
	}
	for i := range tokens {
		x := c.x.Row(i)
		sum := 0.0
		for k := range form.Rows {
			v := dot(form.Row(k), x)
			sum += v * v
		}
		for j := range x {
			x[j] /= math.Sqrt(sum)
		}
	}
	for _, threads := range []int{1, 2} {
		o := EnergyOptions{
			Down: c.down, Gamma: c.gamma, Rows: content + energy, Steps: 3000, Engine: blas.New(threads),
			Train: energyRows(c.x, 0, 1200), Hold: energyRows(c.x, 1200, tokens),
		}
		en, err := FitEnergy(o)
		if err != nil {
			t.Fatal(err)
		}
		spread, mean := bruteSpread(en.Latent, o.Hold)
		if spread > 1e-6 || math.Abs(spread-en.Fluctuation) > 1e-9 || math.Abs(mean-1) > 1e-9 {
			t.Errorf("fluctuation %g, reported %g, mean factor %g", spread, en.Fluctuation, mean)
		}
		checkContent(t, en, c.down)
	}
}

// TestEnergyGradient compares the derivative with differences of the loss, and the loss with its definition.
func TestEnergyGradient(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	c := newEnergyCase(r, 9, 3, 40)
	scaled := c.down.Clone()
	for i := range scaled.Rows {
		for j, g := range c.gamma {
			scaled.Row(i)[j] *= g
		}
	}
	basis, err := rowBasis(nil, scaled)
	if err != nil {
		t.Fatal(err)
	}
	tokens := energyRows(c.x, 0, 40)
	p := &energyFit{content: 3, rows: 5, d: 9, train: newEnergyData(nil, tokens, c.gamma, basis)}
	x := make([]float64, 3*3+2*9)
	for i := range x {
		x[i] = 0.3 * r.NormFloat64()
	}
	gradient := make([]float64, len(x))
	loss := p.loss(x, gradient)

	// sum_t w_t (|T z|^2 - 1)^2 with T = [L C; R].
	whole := svd.NewMatrix(5, 9)
	l, rows := p.parts(x)
	svd.Gemm(nil, false, false, 1, l, basis, 0, whole.Slice(0, 3, 0, 9))
	for i := range 2 {
		copy(whole.Row(3+i), rows.Row(i))
	}
	want, total := 0.0, 0.0
	for i, w := range tokens.Weights {
		energy := 0.0
		for k := range 5 {
			v := 0.0
			for j := range 9 {
				v += whole.At(k, j) * tokens.Inputs.At(i, j) / c.gamma[j]
			}
			energy += v * v
		}
		want += w * (energy - 1) * (energy - 1)
		total += w
	}
	if want /= total; math.Abs(loss-want) > 1e-12*want {
		t.Errorf("loss %g, want %g", loss, want)
	}
	const h = 1e-5
	for i := range x {
		keep := x[i]
		x[i] = keep + h
		up := p.loss(x, nil)
		x[i] = keep - h
		down := p.loss(x, nil)
		x[i] = keep
		if slope := (up - down) / (2 * h); math.Abs(slope-gradient[i]) > 1e-7*(1+math.Abs(slope)) {
			t.Errorf("parameter %d: derivative %g, differences give %g", i, gradient[i], slope)
		}
	}
}

// TestEnergySphere: without tokens the reported fluctuation is that of inputs uniform on the sphere.
func TestEnergySphere(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	c := newEnergyCase(r, 40, 6, 20000)
	en, err := FitEnergy(EnergyOptions{Down: c.down, Gamma: c.gamma, Rows: 16})
	if err != nil {
		t.Fatal(err)
	}
	all := EnergyTokens{Inputs: c.x, Weights: make([]float64, c.x.Rows)}
	for i := range all.Weights {
		all.Weights[i] = 1
	}
	// 20,000 samples give a standard deviation to about 1 %, its mean to 0.1 %.
	if spread, mean := bruteSpread(en.Latent, all); math.Abs(spread/en.Fluctuation-1) > 0.04 || math.Abs(mean-1) > 4e-3 {
		t.Errorf("fluctuation %g, reported %g, mean factor %g", spread, en.Fluctuation, mean)
	}
	checkContent(t, en, c.down)
}

// TestEnergyContent: rows that repeat others need no room, and too little of it is an error; a fit never does worse than the
// form that it starts from.
func TestEnergyContent(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	c := newEnergyCase(r, 30, 5, 600)
	down := svd.NewMatrix(8, 30)
	for i := range 5 {
		copy(down.Row(i), c.down.Row(i))
	}
	copy(down.Row(5), c.down.Row(0))
	o := EnergyOptions{Down: down, Gamma: c.gamma, Rows: 6, Train: energyRows(c.x, 0, 500), Hold: energyRows(c.x, 500, 600)}
	start, err := FitEnergy(o)
	if err != nil {
		t.Fatal(err)
	}
	checkContent(t, start, down)
	o.Steps = 40
	fitted, err := FitEnergy(o)
	if err != nil {
		t.Fatal(err)
	}
	checkContent(t, fitted, down)
	if fitted.Fluctuation > start.Fluctuation {
		t.Errorf("%g after the fit, %g before", fitted.Fluctuation, start.Fluctuation)
	}
	o.Rows = 4
	if _, err := FitEnergy(o); err == nil {
		t.Error("content of rank 5 in 4 rows")
	}
	none, err := FitEnergy(EnergyOptions{Down: svd.NewMatrix(2, 30), Gamma: c.gamma, Rows: 3})
	if err != nil || none.Latent.Rows != 3 {
		t.Errorf("no content: %v", err)
	}
}

// TestEnergyOfPadding: inputs of zero, whose energy no latent changes, are as if they were not there.
func TestEnergyOfPadding(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	c := newEnergyCase(r, 20, 5, 300)
	padded := func(t EnergyTokens) EnergyTokens {
		out := EnergyTokens{Inputs: svd.NewMatrix(t.Inputs.Rows+6, t.Inputs.Cols)}
		for i := range t.Inputs.Rows {
			if i%50 == 7 {
				out.Weights = append(out.Weights, 3)
			}
			copy(out.Inputs.Row(len(out.Weights)), t.Inputs.Row(i))
			out.Weights = append(out.Weights, t.Weights[i])
		}
		out.Inputs = out.Inputs.Slice(0, len(out.Weights), 0, out.Inputs.Cols)
		return out
	}
	o := EnergyOptions{Down: c.down, Gamma: c.gamma, Rows: 8, Steps: 30, Train: energyRows(c.x, 0, 200), Hold: energyRows(c.x, 200, 300)}
	want, err := FitEnergy(o)
	if err != nil {
		t.Fatal(err)
	}
	o.Train, o.Hold = padded(o.Train), padded(o.Hold)
	got, err := FitEnergy(o)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("fluctuation %g with padding, %g without", got.Fluctuation, want.Fluctuation)
	}
	// Nothing else: as without tokens.
	o.Train.Inputs, o.Hold.Inputs = svd.NewMatrix(o.Train.Inputs.Rows, 20), svd.NewMatrix(o.Hold.Inputs.Rows, 20)
	if got, err = FitEnergy(o); err != nil {
		t.Fatal(err)
	}
	if spread, _ := sphereSpread(8, 20); got.Fluctuation != spread {
		t.Errorf("fluctuation %g on padding alone, %g on a sphere", got.Fluctuation, spread)
	}
}
