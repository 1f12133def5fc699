package bench

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/vec"
)

// Figure is one thing that was measured.
type Figure struct {
	Name string `json:"name"`
	// Size is that of the data: rows x columns x inner dimension of a product.
	Size string `json:"size"`
	// Unit is what is counted: flop (floating-point operations), element, evaluation or byte.
	Unit string `json:"unit"`
	// One and All are units a second, of one goroutine and of as many as there are processors. All is zero for what one
	// goroutine does.
	One float64 `json:"one_thread"`
	All float64 `json:"all_threads,omitempty"`
}

// Options configures [Measure].
type Options struct {
	// Time is how long each figure is measured for, at least; every figure takes at least two runs of its work.
	Time time.Duration
	// Dir is where the rate of writing files is measured, with a file that is removed again; empty leaves it out.
	Dir string
}

// Result is what [Measure] found.
type Result struct {
	Kernels string `json:"kernels"`
	Threads int    `json:"threads"`
	// Figures are in the order in which they were measured.
	Figures []Figure `json:"figures"`
	Machine Machine  `json:"-"`
}

// task is a figure before it is measured.
type task struct {
	name, size, unit string
	kinds            []Kind
	amount           float64 // units of one run
	single           bool    // runs on one goroutine only
	prepare          func() (run func(e *blas.Engine) error)
}

// Measure measures every figure in turn. The data of a figure is let go before the next one.
func Measure(ctx context.Context, o Options) (*Result, error) {
	all := blas.New(0)
	one := blas.New(1)
	r := &Result{Kernels: blas.Features(), Threads: all.Threads()}
	r.Machine.Threads = r.Threads
	tasks := tasks(r.Kernels == "portable")
	if o.Dir != "" {
		tasks = append(tasks, writing(o.Dir))
	}
	for _, t := range tasks {
		run := t.prepare()
		f := Figure{Name: t.name, Size: t.size, Unit: t.unit}
		var err error
		if f.One, err = t.rate(ctx, one, run, o.Time); err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
		rate := f.One
		if !t.single {
			if rate, err = t.rate(ctx, all, run, o.Time); err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			f.All = rate
		}
		for _, k := range t.kinds {
			r.Machine.One[k], r.Machine.All[k] = f.One, rate
		}
		r.Figures = append(r.Figures, f)
		runtime.GC()
	}
	return r, nil
}

// rate runs the task for at least the given time and returns the units a second of the fastest run: what disturbs a run
// only makes it slower. The first run warms up.
func (t *task) rate(ctx context.Context, e *blas.Engine, run func(e *blas.Engine) error, least time.Duration) (float64, error) {
	if err := run(e); err != nil {
		return 0, err
	}
	best := time.Duration(math.MaxInt64)
	for begin := time.Now(); ; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		start := time.Now()
		if err := run(e); err != nil {
			return 0, err
		}
		best = min(best, max(time.Since(start), 1))
		if time.Since(begin) >= least {
			return t.amount / best.Seconds(), nil
		}
	}
}

// tasks are the figures of every machine. A machine without kernels gets smaller ones.
func tasks(slow bool) []task {
	square, width, inner := 1024, 4096, 2048
	if slow {
		square, width, inner = 256, 1024, 512
	}
	const vectors, sequences = 64, 48
	return []task{
		sgemm("float32 product", square, square, square, F32),
		sgemm("float32 product, thin", sequences, width, width, F32Thin),
		dgemm("float64 product", square, square, square, F64),
		dgemm("float64 product, thin", vectors, inner, inner, F64Thin),
		bgemm("float32 x bfloat16 product", square, square, square, BF16),
		bgemm("float32 x bfloat16 product, thin", sequences, width, width, BF16Thin),
		syrk("float32 symmetric product", square, (*blas.Engine).Ssyrk),
		syrk("float64 symmetric product", square, (*blas.Engine).Dsyrk),
		copying(),
		allocating(),
		short(),
		exponentials(),
		complexLoop(),
		realLoop(),
		functions(),
		hashing(),
	}
}

func product(name string, m, n, k int, kind Kind, prepare func() func(e *blas.Engine) error) task {
	return task{
		name: name, size: fmt.Sprintf("%d x %d x %d", m, n, k), unit: "flop", kinds: []Kind{kind},
		amount: 2 * float64(m) * float64(n) * float64(k), prepare: prepare,
	}
}

func sgemm(name string, m, n, k int, kind Kind) task {
	return product(name, m, n, k, kind, func() func(e *blas.Engine) error {
		a, b, c := random[float32](m*k), random[float32](n*k), make([]float32, m*n)
		return func(e *blas.Engine) error {
			e.Sgemm(false, true, m, n, k, 1, a, k, b, k, 0, c, n)
			return nil
		}
	})
}

func dgemm(name string, m, n, k int, kind Kind) task {
	return product(name, m, n, k, kind, func() func(e *blas.Engine) error {
		a, b, c := random[float64](m*k), random[float64](n*k), make([]float64, m*n)
		return func(e *blas.Engine) error {
			e.Dgemm(false, false, m, n, k, 1, a, k, b, n, 0, c, n)
			return nil
		}
	})
}

func bgemm(name string, m, n, k int, kind Kind) task {
	return product(name, m, n, k, kind, func() func(e *blas.Engine) error {
		a, b, c := random[float32](m*k), make([]uint16, n*k), make([]float32, m*n)
		for i, v := range random[float32](n * k) {
			b[i] = uint16(math.Float32bits(v) >> 16)
		}
		return func(e *blas.Engine) error {
			e.SgemmBF16(true, m, n, k, 1, a, k, b, k, 0, c, n)
			return nil
		}
	})
}

func syrk[T float32 | float64](name string, n int, f func(e *blas.Engine, trans bool, n, k int, alpha T, a []T, lda int, beta T, c []T, ldc int)) task {
	return task{
		name: name, size: fmt.Sprintf("%d x %d", n, n), unit: "flop", amount: float64(n) * float64(n) * float64(n),
		prepare: func() func(e *blas.Engine) error {
			a, c := random[T](n*n), make([]T, n*n)
			return func(e *blas.Engine) error {
				f(e, false, n, n, 1, a, n, 0, c, n)
				return nil
			}
		},
	}
}

// copying is the bandwidth of the memory, bytes read and bytes written.
func copying() task {
	const size, chunk = 64 << 20, 1 << 20
	return task{
		name: "memory, copied", size: "64 MiB", unit: "byte", amount: 2 * size,
		prepare: func() func(e *blas.Engine) error {
			from, to := make([]byte, size), make([]byte, size)
			for i := 0; i < size; i += 4096 {
				from[i] = 1 // pages that were never written share one of zeros
			}
			return func(e *blas.Engine) error {
				e.For(size/chunk, func(i int) { copy(to[i*chunk:(i+1)*chunk], from[i*chunk:]) })
				return nil
			}
		},
	}
}

// short is what attention over a cache does: the query heads of a group by their keys, and their weights by the values, in
// a cache whose rows hold several heads. One task is one sequence.
func short() task {
	const width, stride, length, group, sequences = 64, 256, 512, 4, 32
	return task{
		name: "attention over a cache", size: fmt.Sprintf("%d x %d x %d", group, length, width), unit: "flop", kinds: []Kind{Short},
		amount: 4 * group * width * length * sequences,
		prepare: func() func(e *blas.Engine) error {
			serial := blas.New(1)
			cache, queries := random[float32](sequences*length*stride), random[float32](group*width)
			return func(e *blas.Engine) error {
				e.For(sequences, func(s int) {
					var weights [group * length]float32
					var out [group * width]float32
					rows := cache[s*length*stride:]
					serial.Sgemm(false, true, group, length, width, 1, queries, width, rows, stride, 0, weights[:], length)
					serial.Sgemm(false, false, group, width, length, 1, weights[:], length, rows, stride, 0, out[:], width)
				})
				return nil
			}
		},
	}
}

// exponentials is softmax over rows of attention weights.
func exponentials() task {
	const length, rows = 512, 512
	return task{
		name: "softmax", size: fmt.Sprint(length), unit: "element", kinds: []Kind{Exp}, amount: length * rows,
		prepare: func() func(e *blas.Engine) error {
			x := random[float32](length * rows)
			return func(e *blas.Engine) error {
				e.For(rows, func(i int) { vec.Softmax(x[i*length : (i+1)*length]) })
				return nil
			}
		},
	}
}

// allocating is matrices as large as those of a layer, made and let go.
func allocating() task {
	const size, count = 4 << 20, 8
	return task{
		name: "memory, allocated", size: "4 MiB", unit: "byte", kinds: []Kind{Fresh}, amount: size * count, single: true,
		prepare: func() func(e *blas.Engine) error {
			held := make([][]byte, 3)
			return func(*blas.Engine) error {
				for i := range count {
					held[i%len(held)] = make([]byte, size)
					for j := 0; j < size; j += 4096 {
						held[i%len(held)][j] = 1
					}
				}
				return nil
			}
		},
	}
}

// complexLoop is y += c x for rows of complex numbers held as two rows of float64, what the rotary slots are made with.
func complexLoop() task {
	const width, rows = 1024, 64
	return task{
		name: "complex loops", size: fmt.Sprint(width), unit: "flop", kinds: []Kind{Plain}, amount: 8 * width * rows,
		prepare: func() func(e *blas.Engine) error {
			x, y := random[float64](2*width*rows), make([]float64, 2*width*rows)
			return func(e *blas.Engine) error {
				e.For(rows, func(r int) {
					at := 2 * width * r
					xr, xi, yr, yi := x[at:at+width], x[at+width:at+2*width], y[at:at+width], y[at+width:at+2*width]
					a, b := x[at], x[at+1]
					for j, u := range xr {
						v := xi[j]
						yr[j] += a*u - b*v
						yi[j] += a*v + b*u
					}
				})
				return nil
			}
		},
	}
}

// realLoop is a row of a matrix used for both of its places in a symmetric product, as in the reduction to tridiagonal
// form: y += x_i a and sum += a x.
func realLoop() task {
	const width, rows = 512, 512
	return task{
		name: "real loops", size: fmt.Sprint(width), unit: "flop", kinds: []Kind{Shared}, amount: 4 * width * rows,
		prepare: func() func(e *blas.Engine) error {
			a, x := random[float64](width*rows), random[float64](width)
			y := make([]float64, width*rows)
			return func(e *blas.Engine) error {
				e.For(rows, func(r int) {
					row, to, f := a[r*width:(r+1)*width], y[r*width:(r+1)*width], x[r]
					sum := 0.0
					for j, v := range row {
						sum += v * x[j]
						to[j] += v * f
					}
					to[0] += sum
				})
				return nil
			}
		},
	}
}

// functions is [math.Sincos] over phases of distances.
func functions() task {
	const rows, length = 32, 1024
	return task{
		name: "sines and cosines", size: fmt.Sprint(length), unit: "evaluation", kinds: []Kind{Math}, amount: rows * length,
		prepare: func() func(e *blas.Engine) error {
			sums := make([]float64, rows)
			return func(e *blas.Engine) error {
				e.For(rows, func(r int) {
					sum := 0.0
					for d := range length {
						s, c := math.Sincos(0.1 * float64(r) * float64(d))
						sum += s + c
					}
					sums[r] = sum
				})
				return nil
			}
		},
	}
}

func hashing() task {
	const size = 4 << 20
	return task{
		name: "SHA-256", size: "4 MiB", unit: "byte", kinds: []Kind{Hash}, amount: size, single: true,
		prepare: func() func(e *blas.Engine) error {
			data := make([]byte, size)
			return func(*blas.Engine) error {
				sha256.Sum256(data)
				return nil
			}
		},
	}
}

// writing is a file's way to the disk: written in pieces, synced, removed.
func writing(dir string) task {
	const size, piece = 64 << 20, 1 << 20
	return task{
		name: "files, written and synced", size: "64 MiB", unit: "byte", kinds: []Kind{Write}, amount: size, single: true,
		prepare: func() func(e *blas.Engine) error {
			data := make([]byte, piece)
			return func(*blas.Engine) error { return writeFile(dir, data, size/piece) }
		},
	}
}

// writeFile writes the data so many times into a file of dir and removes it.
func writeFile(dir string, data []byte, times int) (err error) {
	f, err := os.CreateTemp(dir, ".mlaconvert-bench-*")
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
		if e := os.Remove(f.Name()); err == nil {
			err = e
		}
	}()
	for range times {
		if _, err := f.Write(data); err != nil {
			return err
		}
	}
	return f.Sync()
}

func random[T float32 | float64](n int) []T {
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]T, n)
	for i := range out {
		out[i] = T(r.Float64() - 0.5)
	}
	return out
}
