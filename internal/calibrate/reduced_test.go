package calibrate

import (
	"math/rand/v2"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/svd"
)

// TestReducedStatistics: the moments in a basis are those of the inputs, projected.
func TestReducedStatistics(t *testing.T) {
	net, _ := network(t, nil)
	a, batch, h := attentionInputs(t, net, 1, 1, rand.New(rand.NewPCG(1, 2)), 90, 50)
	e := blas.New(2)
	const width, far = 20, 90
	whole := Statistics(e, a, &batch, h, far)
	got, err := ReducedStatistics(e, a, sourceLayer(a), &batch, h, width, far)
	if err != nil {
		t.Fatal(err)
	}
	p := got.Basis.Rows
	if p.Rows != width {
		t.Fatalf("%d rows, want %d", p.Rows, width)
	}
	same := func(name string, got, want []float64) {
		t.Helper()
		if e := distance(got, want); e > 1e-5 {
			t.Errorf("%s: relative error %g", name, e)
		}
	}
	projected := func(m svd.Matrix) []float64 {
		return svd.Product(e, false, true, svd.Product(e, false, false, p, m), p).Data
	}
	same("input", got.Input.Data, projected(whole.Input))
	for hd := range whole.Heads {
		g, w := &got.Heads[hd], &whole.Heads[hd]
		same("softmax", g.Softmax.Data, projected(w.Softmax))
		same("averaged", g.Averaged.Data, projected(w.Averaged))
		same("mean", g.Mean, svd.Product(e, false, false, p, svd.Matrix{Rows: len(w.Mean), Cols: 1, Stride: 1, Data: w.Mean}).Data)
		same("query", g.Query.Data, w.Query.Data)
		same("squared", []float64{g.Squared}, []float64{w.Squared})
		same("distances", g.Distances, w.Distances)
	}
}
