package verify

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/sbinet/npyio/npy"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/testmodel"
	"github.com/mlaconvert/mlaconvert/internal/tokens"
)

// TestGolden compares the source's forward pass with transformers': the logits that testdata/train/golden.py stored, to
// 2e-4, and the perplexity that follows from them.
func TestGolden(t *testing.T) {
	for _, name := range []string{"gqa", "mha"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("..", "testdata", name)
			src := testmodel.OpenDir(t, dir)
			m, err := arch.Parse(src.Config())
			if err != nil {
				t.Fatal(err)
			}
			net, err := model.OpenSource(src, m)
			if err != nil {
				t.Fatal(err)
			}
			ids, err := tokens.IDs(filepath.Join(dir, "golden", "ids.npy"), tokens.Options{Vocab: m.Vocab})
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(filepath.Join(dir, "golden", "logits.npy"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var golden []float32
			if err := npy.Read(f, &golden); err != nil {
				t.Fatal(err)
			}

			b := model.NewBatch(ids)
			if want := b.Tokens() * m.Vocab; len(golden) != want {
				t.Fatalf("%d golden logits, want %d", len(golden), want)
			}
			e := blas.New(2)
			x, err := net.Forward(e, &b)
			if err != nil {
				t.Fatal(err)
			}
			worst := 0.0
			net.Logits(e, b.Tokens(), x, func(lo, m int, got []float32) {
				for i, v := range got {
					worst = math.Max(worst, math.Abs(float64(v-golden[lo*net.Vocab+i])))
				}
			})
			if !(worst <= 2e-4) {
				t.Errorf("logits differ by up to %g", worst)
			}

			nll, n := 0.0, 0.0
			for i, label := range next(&b) {
				if label >= 0 {
					nll -= logSoftmax(double(golden[i*m.Vocab : (i+1)*m.Vocab]))[label]
					n++
				}
			}
			v, err := Run(context.Background(), Options{Source: net, Target: net, Batch: b, Engine: e})
			if err != nil {
				t.Fatal(err)
			}
			if want := math.Exp(nll / n); math.Abs(float64(v.Perplexity.Source)/want-1) > 1e-5 {
				t.Errorf("perplexity %g, want %g", float64(v.Perplexity.Source), want)
			}
			t.Logf("logits differ by up to %g, perplexity %.2f", worst, float64(v.Perplexity.Source))
		})
	}
}
