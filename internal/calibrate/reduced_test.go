package calibrate

import (
	"math/rand/v2"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/svd"
)

// TestReducedStatistics: the moments in a basis are those of the inputs, projected.
func TestReducedStatistics(t *testing.T) {
	net, _ := network(t, nil)
	block, err := net.Block(1)
	if err != nil {
		t.Fatal(err)
	}
	defer block.Close()
	a := block.Attention.(*model.GQA)
	batch := model.NewBatch([][]int{make([]int, 90), make([]int, 50)})
	r := rand.New(rand.NewPCG(1, 2))
	h := make([]float32, batch.Tokens()*a.Q.In)
	for i := range h {
		h[i] = float32(1 + r.NormFloat64())
	}
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
