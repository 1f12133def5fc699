package bench

import "encoding/json"

// Kind is a kind of work.
type Kind int

// The kinds, with the unit of their work. Products are those of internal/blas: wide ones have hundreds of rows, thin ones
// those of a block of vectors (64, float64) or of sequences decoded side by side (48, float32).
const (
	F64      Kind = iota // wide float64 products, floating-point operations
	F64Thin              // thin float64 products, floating-point operations
	F32                  // wide float32 products, floating-point operations
	F32Thin              // thin float32 products, floating-point operations
	BF16                 // wide products with bfloat16 weights, floating-point operations
	BF16Thin             // thin products with bfloat16 weights, floating-point operations
	Short                // products of attention over a cache, a few heads by their keys or values, floating-point operations
	Plain                // loops in Go over complex numbers, of one goroutine, floating-point operations
	Shared               // loops in Go over real numbers, dealt to all goroutines, floating-point operations
	Exp                  // softmax and SiLU, elements
	Math                 // sines, cosines and exponentials of package math, evaluations
	Fresh                // memory allocated, bytes
	Hash                 // SHA-256, bytes
	Write                // files, bytes
	Kinds                // how many there are
)

// names are what the kinds are called in JSON.
var names = [Kinds]string{"f64", "f64_thin", "f32", "f32_thin", "bf16", "bf16_thin", "short", "plain", "shared", "exp", "math", "fresh", "hash", "write"}

// String returns the kind's name in JSON.
func (k Kind) String() string { return names[k] }

// Work is how much of each kind there is to do.
type Work [Kinds]float64

// MarshalJSON writes an object of the kinds that there is work of.
func (w Work) MarshalJSON() ([]byte, error) {
	object := make(map[string]float64)
	for k, v := range w {
		if v != 0 {
			object[names[k]] = v
		}
	}
	return json.Marshal(object)
}

// Add adds n times o.
func (w *Work) Add(n float64, o Work) {
	for k, v := range o {
		w[k] += n * v
	}
}

// Sum is the work of all parts.
func Sum(parts ...Work) Work {
	var w Work
	for _, p := range parts {
		w.Add(1, p)
	}
	return w
}

// Times returns n times the work.
func (w Work) Times(n float64) Work {
	var out Work
	out.Add(n, w)
	return out
}

// Rates are units of work a second; a zero is a rate that was not measured.
type Rates [Kinds]float64

// Seconds is how long the work takes. Kinds without a rate are taken for free.
func (r *Rates) Seconds(w Work) float64 {
	sum := 0.0
	for k, v := range w {
		if r[k] > 0 {
			sum += v / r[k]
		}
	}
	return sum
}

// parallel says which kinds run on all goroutines of one engine. The others run on the goroutine that asks for them.
var parallel = [Kinds]bool{F64: true, F64Thin: true, F32: true, F32Thin: true, BF16: true, BF16Thin: true, Short: true, Shared: true, Exp: true, Math: true}

// Machine holds the rates of one goroutine and of an engine on all processors.
type Machine struct {
	Threads  int
	One, All Rates
}

// Engine is the rates of one engine of so many threads, between those of one and of all.
func (m *Machine) Engine(threads int) Rates {
	r := m.One
	if m.Threads < 2 {
		return r
	}
	share := float64(min(threads, m.Threads)-1) / float64(m.Threads-1)
	for k := range r {
		if parallel[k] {
			r[k] += share * (m.All[k] - m.One[k])
		}
	}
	return r
}

// SideBySide is the rates of several engines of so many threads at once: all kinds of work but writing run side by side.
func (m *Machine) SideBySide(engines, threads int) Rates {
	r := m.Engine(threads)
	for k := range r {
		if Kind(k) != Write {
			r[k] *= float64(min(engines, m.Threads))
		}
	}
	return r
}
