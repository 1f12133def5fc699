package svd

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// spectrum returns n singular values of a kind met in weights.
func spectrum(kind string, n int) []float64 {
	rng := rand.New(rand.NewPCG(7, 8))
	s := make([]float64, n)
	for i := range s {
		x := float64(i + 1)
		switch kind {
		case "power 0.5":
			s[i] = math.Pow(x, -0.5)
		case "power 1":
			s[i] = 1 / x
		case "exponential over noise":
			s[i] = math.Exp(-x/(float64(n)/25)) + 0.01*(1+0.1*rng.Float64())
		case "flat":
			s[i] = 1
		case "steep":
			s[i] = math.Pow(10, -x/8)
		}
	}
	slices.SortFunc(s, descending)
	return s
}

type route struct {
	name string
	run  func(a Matrix, rank int, opt Options) (*Truncation, error)
}

// routes are the ways to a truncation that must agree. The last two go through the
// Krylov iteration whatever the size.
func routes() []route {
	return []route{
		{"Exact", func(a Matrix, rank int, _ Options) (*Truncation, error) { return Exact(a, rank) }},
		{"Truncate", Truncate},
		{"Gram", func(a Matrix, rank int, opt Options) (*Truncation, error) { return truncate(a, rank, true, opt) }},
		{"direct", func(a Matrix, rank int, opt Options) (*Truncation, error) { return truncate(a, rank, false, opt) }},
	}
}

// checkTruncation checks what a truncation promises against a itself.
func checkTruncation(t *testing.T, a Matrix, rank int, f *Truncation) {
	t.Helper()
	r := min(rank, a.Rows, a.Cols)
	if f.U.Rows != a.Rows || f.U.Cols != r || f.V.Rows != a.Cols || f.V.Cols != r || len(f.S) != r {
		t.Fatalf("U %d x %d, S %d, V %d x %d for rank %d of %d x %d", f.U.Rows, f.U.Cols, len(f.S), f.V.Rows, f.V.Cols, rank, a.Rows, a.Cols)
	}
	if !slices.IsSortedFunc(f.S, descending) || r > 0 && f.S[r-1] < 0 {
		t.Errorf("singular values are not descending: %v", f.S)
	}
	if o := orthogonalityError(f.U); !(o < 1e-12) {
		t.Errorf("U: orthogonality error %g", o)
	}
	if o := orthogonalityError(f.V); !(o < 1e-12) {
		t.Errorf("V: orthogonality error %g", o)
	}
	us := f.U.Clone()
	for i := range us.Rows {
		for j := range r {
			us.Data[i*us.Stride+j] *= f.S[j]
		}
	}
	norm := frobenius(a)
	if a.Rows >= a.Cols {
		if e := frobenius(naiveSub(us, naiveProduct(a, f.V))); !(e <= 1e-12*norm) {
			t.Errorf("A V differs from U S by %g, |A| = %g", e, norm)
		}
	} else {
		vs := f.V.Clone()
		for i := range vs.Rows {
			for j := range r {
				vs.Data[i*vs.Stride+j] *= f.S[j]
			}
		}
		if e := frobenius(naiveSub(vs, naiveProduct(a.T(), f.U))); !(e <= 1e-12*norm) {
			t.Errorf("A^T U differs from V S by %g, |A| = %g", e, norm)
		}
	}
	err := frobenius(naiveSub(a, naiveProduct(us, f.V.T())))
	if d := math.Sqrt(f.Discarded); math.Abs(d-err) > 1e-9*err+1e-14*norm {
		t.Errorf("true error %g, sqrt(Discarded) %g, |A| = %g", err, d, norm)
	}
	if d := math.Abs(f.Captured + f.Discarded - f.Total); d > 1e-12*f.Total {
		t.Errorf("Captured %g + Discarded %g != Total %g", f.Captured, f.Discarded, f.Total)
	}
	for j := range r {
		if leadingSign(f.V, j) <= 0 {
			t.Errorf("largest component of V's column %d is not positive", j)
		}
	}
}

func TestTruncateShapes(t *testing.T) {
	rng := testRNG()
	for _, shape := range [][2]int{{0, 0}, {0, 4}, {4, 0}, {1, 1}, {1, 9}, {9, 1}, {40, 40}, {35, 90}, {90, 35}, {33, 34}} {
		for _, rank := range []int{0, 1, 7, 34, 200} {
			for pad := range 2 {
				a := paddedMatrix(rng, shape[0], shape[1], pad)
				before := slices.Clone(a.Data)
				best := []float64{0}
				if min(shape[0], shape[1]) > 0 {
					best = optimalDiscarded(a)
				}
				for _, rt := range routes() {
					t.Run(fmt.Sprintf("%s/%dx%d/%d/pad=%d", rt.name, shape[0], shape[1], rank, pad), func(t *testing.T) {
						f, err := rt.run(a, rank, Options{})
						if err != nil {
							t.Fatal(err)
						}
						checkTruncation(t, a, rank, f)
						want := best[min(rank, shape[0], shape[1])]
						if f.Discarded < want*(1-1e-10)-1e-25*best[0] || f.Discarded > want*(1+2e-4)+1e-25*best[0] {
							t.Errorf("Discarded %g, optimum %g", f.Discarded, want)
						}
						for i, v := range before {
							if a.Data[i] != v && !math.IsNaN(v) {
								t.Fatal("the input was changed")
							}
						}
					})
				}
			}
		}
	}
}

// The excess over the optimum on the spectra of numerics.md, at sizes where
// every route iterates.
func TestTruncateExcess(t *testing.T) {
	for _, kind := range []string{"power 0.5", "power 1", "exponential over noise", "flat", "steep"} {
		s := spectrum(kind, 240)
		for _, shape := range [][2]int{{300, 240}, {240, 300}} {
			a := withSpectrum(testRNG(), shape[0], shape[1], s)
			for _, rank := range []int{1, 24, 60} {
				var want float64
				for _, v := range s[rank:] {
					want += v * v
				}
				for _, rt := range routes()[2:] {
					f, err := rt.run(a, rank, Options{})
					if err != nil {
						t.Fatal(err)
					}
					checkTruncation(t, a, rank, f)
					excess := f.Discarded/want - 1
					t.Logf("%s, %v, rank %d, %s: %d blocks, excess energy %.2g", kind, shape, rank, rt.name, f.Iterations, excess)
					// Below the rounding of the Gram matrix the optimum is out
					// of reach.
					if allowed := 1e-4 + 1e-14*f.Total/want; !f.Converged || excess > allowed {
						t.Errorf("%s, %v, rank %d, %s: excess energy %g over the optimum, converged %v", kind, shape, rank, rt.name, excess, f.Converged)
					}
				}
			}
		}
	}
}

func TestTruncateSpecial(t *testing.T) {
	rng := testRNG()
	identity := eye(250)
	ones := NewMatrix(230, 260)
	for i := range ones.Data {
		ones.Data[i] = 1
	}
	repeated := withSpectrum(rng, 260, 230, slices.Concat(slices.Repeat([]float64{2}, 90), slices.Repeat([]float64{1}, 140)))
	deficient := naiveProduct(randomMatrix(rng, 260, 12), randomMatrix(rng, 12, 230))
	noisy := withSpectrum(rng, 260, 230, slices.Concat(slices.Repeat([]float64{1}, 12), slices.Repeat([]float64{1e-9}, 218)))
	graded := randomMatrix(rng, 240, 220)
	for i := range 240 {
		scale(math.Pow(10, -float64(i)/20), graded.Row(i))
	}
	for _, tc := range []struct {
		name string
		a    Matrix
		rank int
		best float64 // optimal discarded energy
	}{
		{"zero", NewMatrix(240, 220), 5, 0},
		{"identity", identity, 20, 230},
		{"ones", ones, 3, 0},
		{"repeated above the cut", repeated, 50, 40*4 + 140},
		{"repeated at the cut", repeated, 90, 140},
		{"rank 12 to 12", deficient, 12, 0},
		{"rank 12 to 5", deficient, 5, optimalDiscarded(deficient)[5]},
		{"rank 12 to 40", deficient, 40, 0},
		{"noise below the Gram's rounding", noisy, 40, optimalDiscarded(noisy)[40]},
		{"graded rows", graded, 30, optimalDiscarded(graded)[30]},
	} {
		for _, rt := range routes()[1:] {
			t.Run(tc.name+"/"+rt.name, func(t *testing.T) {
				f, err := rt.run(tc.a, tc.rank, Options{})
				if err != nil {
					t.Fatal(err)
				}
				checkTruncation(t, tc.a, tc.rank, f)
				if excess := f.Discarded - tc.best; excess > 1e-4*tc.best+1e-13*f.Total || excess < -1e-12*f.Total {
					t.Errorf("Discarded %g, optimum %g", f.Discarded, tc.best)
				}
			})
		}
	}
}

func TestTruncateScale(t *testing.T) {
	base := withSpectrum(testRNG(), 260, 220, spectrum("power 1", 220))
	for _, rt := range routes() {
		want, err := rt.run(base, 20, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []float64{0x1p-498, 0x1p498} { // 1e-150 and 1e150
			a := base.Clone()
			scale(s, a.Data)
			f, err := rt.run(a, 20, Options{})
			if err != nil {
				t.Fatalf("%s, scale %g: %v", rt.name, s, err)
			}
			for i, v := range want.S {
				if math.Abs(f.S[i]/s-v) > 1e-12 {
					t.Errorf("%s, scale %g: singular value %d is %g, want %g", rt.name, s, i, f.S[i]/s, v)
				}
			}
			if d := f.Discarded / s / s; math.Abs(d-want.Discarded) > 1e-6*want.Discarded {
				t.Errorf("%s, scale %g: Discarded %g, want %g", rt.name, s, d, want.Discarded)
			}
		}
	}
}

func TestTruncateMonotone(t *testing.T) {
	a := withSpectrum(testRNG(), 230, 280, spectrum("power 0.5", 230))
	for _, rt := range routes()[1:] {
		last := math.Inf(1)
		for rank := 0; rank <= 90; rank += 10 {
			f, err := rt.run(a, rank, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if f.Discarded >= last {
				t.Errorf("%s: rank %d discards %g, a smaller one %g", rt.name, rank, f.Discarded, last)
			}
			last = f.Discarded
		}
	}
}

func TestTruncateThreads(t *testing.T) {
	a := withSpectrum(testRNG(), 300, 260, spectrum("power 1", 260))
	for _, rt := range routes()[1:] {
		var first *Truncation
		for threads := 1; threads <= 3; threads++ {
			f, err := rt.run(a, 30, Options{Engine: blas.New(threads)})
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = f
			} else if !slices.Equal(first.S, f.S) || !slices.Equal(first.U.Data, f.U.Data) || !slices.Equal(first.V.Data, f.V.Data) || first.Discarded != f.Discarded {
				t.Errorf("%s: %d threads give other bits than one", rt.name, threads)
			}
		}
	}
}

// A start from a neighbouring problem leads to the same subspace in fewer steps.
func TestTruncateWarmStart(t *testing.T) {
	rng := testRNG()
	const rank = 64
	base := withSpectrum(rng, 420, 400, spectrum("power 1", 400))
	for _, wide := range []bool{false, true} {
		a := base
		if wide {
			a = base.T()
		}
		near := a.Clone()
		for i := range near.Rows {
			for j := range near.Cols {
				near.Data[i*near.Stride+j] *= 1 + 0.02*rng.NormFloat64()
			}
		}
		start, err := truncate(near, rank, true, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, gram := range []bool{true, false} {
			cold, err := truncate(a, rank, gram, Options{Tol: 1e-6})
			if err != nil {
				t.Fatal(err)
			}
			warm, err := truncate(a, rank, gram, Options{Tol: 1e-6, Start: start.V})
			if err != nil {
				t.Fatal(err)
			}
			checkTruncation(t, a, rank, warm)
			if warm.Iterations >= cold.Iterations {
				t.Errorf("wide %v, Gram %v: %d blocks from a start, %d without", wide, gram, warm.Iterations, cold.Iterations)
			}
			if d := math.Abs(warm.Discarded/cold.Discarded - 1); d > 2e-6 {
				t.Errorf("wide %v, Gram %v: Discarded differs by %g", wide, gram, d)
			}
		}
	}
}

// A start that lies wholly in one of two uncoupled parts of the matrix must
// not hide the other part.
func TestTruncateMisleadingStart(t *testing.T) {
	const n, rank = 220, 32
	rng := testRNG()
	part := withSpectrum(rng, n, n, spectrum("power 1", n))
	a := NewMatrix(2*n, 2*n)
	a.Slice(0, n, 0, n).copyFrom(part)
	a.Slice(n, 2*n, n, 2*n).copyFrom(withSpectrum(rng, n, n, spectrum("power 0.5", n)))
	lead, err := Exact(part, rank)
	if err != nil {
		t.Fatal(err)
	}
	start := NewMatrix(2*n, rank)
	start.Slice(0, n, 0, rank).copyFrom(lead.V)
	values := slices.Concat(spectrum("power 1", n), spectrum("power 0.5", n))
	slices.SortFunc(values, descending)
	var want float64
	for _, v := range values[rank:] {
		want += v * v
	}
	for _, gram := range []bool{true, false} {
		f, err := truncate(a, rank, gram, Options{Start: start})
		if err != nil {
			t.Fatal(err)
		}
		if f.Discarded > (1+2e-4)*want {
			t.Errorf("Gram %v: Discarded %g, optimum %g", gram, f.Discarded, want)
		}
	}
}

func TestTruncateCapped(t *testing.T) {
	a := withSpectrum(testRNG(), 420, 400, spectrum("power 0.5", 400))
	f, err := truncate(a, 64, true, Options{MaxIterations: 1})
	if err != nil {
		t.Fatal(err)
	}
	if f.Converged {
		t.Error("converged in one block")
	}
	checkTruncation(t, a, 64, f)
}

func TestTruncateErrors(t *testing.T) {
	for _, rt := range routes() {
		for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			a := randomMatrix(testRNG(), 210, 220)
			a.Set(200, 7, v)
			if _, err := rt.run(a, 3, Options{}); !errors.Is(err, ErrNotFinite) {
				t.Errorf("%s: %v in the input: error %v", rt.name, v, err)
			}
		}
		mustPanic(t, rt.name+" of negative rank", func() { rt.run(eye(40), -1, Options{}) })
		mustPanic(t, rt.name+" of short data", func() { rt.run(Matrix{Rows: 40, Cols: 40, Stride: 40, Data: make([]float64, 1599)}, 2, Options{}) })
	}
	mustPanic(t, "a start of another height", func() { Truncate(eye(40), 2, Options{Start: NewMatrix(39, 2)}) })
	bad := randomMatrix(testRNG(), 220, 4)
	bad.Set(3, 3, math.NaN())
	if _, err := Truncate(eye(220), 2, Options{Start: bad}); !errors.Is(err, ErrNotFinite) {
		t.Errorf("NaN in the start: error %v", err)
	}
}
