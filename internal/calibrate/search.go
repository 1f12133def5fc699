package calibrate

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/mla"
)

// choose fits every candidate and keeps the one with the least isolated error on the held-out tokens.
func (r *run) choose(source *model.GQA, train, hold *layerData, report *LayerReport) (*model.MLA, error) {
	part, tokens := statisticsPart(train.batch, r.options.StatisticsTokens)
	layer := sourceLayer(source)
	st, err := layerStatistics(r.engine, source, layer, &part, train.sourceIn[:tokens*source.Q.In], r.options.Rank, r.options.Context)
	if err != nil {
		return nil, err
	}
	best, err := bestFit(r.engine, layer, st, r.options.Rank, r.options.Frequencies, r.options.Candidates, hold)
	if err != nil {
		return nil, err
	}
	report.Isolated, report.Candidate = best.err, best.candidate
	// An attention that gives nothing, as pruning leaves it, stays so: no step moves one without an output projection.
	if isZero(layer.V.Data) || isZero(layer.O.Data) {
		clear(best.attention.O.F32)
		clear(best.attention.OBias)
	}
	return best.attention, nil
}

func isZero[T float32 | float64](values []T) bool {
	return !slices.ContainsFunc(values, func(v T) bool { return v != 0 })
}

const (
	// Finalists is how many candidates, the best ones as they start, go through the sweeps, FinalSweeps of them: the
	// sweeps are most of the work and change the order of the best few only.
	Finalists   = 2
	FinalSweeps = 2
)

// search looks for the best factorization of a layer.
type search struct {
	// engine runs two candidates side by side, each on half of the threads: they are many small products and loops in between.
	engine      *blas.Engine
	layer       *mla.Source
	st          *mla.Statistics
	rank        int
	frequencies []float64
	hold        *layerData
	// started are the candidates that were, by their errors.
	started []*fitted
}

// fitted is a candidate's factorization and its isolated error on held-out tokens.
type fitted struct {
	candidate mla.Candidate
	fit       *mla.Fit
	attention *model.MLA
	err       float64
}

func byError(a, b *fitted) int { return cmp.Compare(a.err, b.err) }

// bestFit is the best of the candidates for a layer.
func bestFit(e *blas.Engine, layer *mla.Source, st *mla.Statistics, rank int, frequencies []float64, candidates []mla.Candidate, hold *layerData) (*fitted, error) {
	s := &search{
		engine: e, layer: layer, st: st, rank: rank, frequencies: frequencies, hold: hold,
	}
	// The first candidate chooses the reach at which all others start, and the best of all starts at every other reach.
	if err := s.startAtEveryReach(candidates[0]); err != nil {
		return nil, err
	}
	others := slices.Clone(candidates)
	for i := range others {
		others[i].Reach = s.started[0].candidate.Reach
	}
	if err := s.start(others); err != nil {
		return nil, err
	}
	if err := s.startAtEveryReach(s.started[0].candidate); err != nil {
		return nil, err
	}
	return s.sweep()
}

// sideBySide calls f for 0 and, if n is two, for 1, with an engine for each.
func (s *search) sideBySide(n int, f func(e *blas.Engine, i int) error) error {
	failures := make([]error, n)
	each := blas.New(max(1, s.engine.Threads()/n))
	s.engine.For(n, func(i int) { failures[i] = f(each, i) })
	return errors.Join(failures...)
}

// measure sets a factorization's attention and its error, which is infinite where it is not a number.
func (s *search) measure(e *blas.Engine, f *fitted) {
	y := make([]float32, len(s.hold.output))
	f.attention = model.FromAttention(f.fit.Attention())
	f.attention.Forward(e, s.hold.batch, s.hold.sourceIn, y)
	if f.err = relativeError(y, s.hold.output, s.hold.weights); math.IsNaN(f.err) {
		f.err = math.Inf(1)
	}
}

// start starts those of the candidates that were not, and keeps the factorizations of the best few.
func (s *search) start(candidates []mla.Candidate) error {
	var fresh []*fitted
	for _, c := range candidates {
		if !slices.ContainsFunc(s.started, func(f *fitted) bool { return f.candidate == c }) {
			fresh = append(fresh, &fitted{candidate: c})
		}
	}
	for pair := range slices.Chunk(fresh, 2) {
		err := s.sideBySide(len(pair), func(e *blas.Engine, i int) (err error) {
			f := pair[i]
			if f.fit, err = mla.NewFit(s.layer, s.st, s.rank, s.frequencies, f.candidate, e); err == nil {
				s.measure(e, f)
			}
			return err
		})
		if err != nil {
			return err
		}
		s.started = append(s.started, pair...)
		slices.SortStableFunc(s.started, byError)
		for _, f := range s.started[min(Finalists, len(s.started)):] {
			f.fit, f.attention = nil, nil // never a finalist
		}
	}
	return nil
}

// startAtEveryReach starts a candidate at every reach.
func (s *search) startAtEveryReach(c mla.Candidate) error {
	distances := 0
	for h := range s.st.Heads {
		distances = max(distances, len(s.st.Heads[h].Distances))
	}
	var all []mla.Candidate
	for _, c.Reach = range reaches(distances) {
		all = append(all, c)
	}
	return s.start(all)
}

// sweep returns the best of the best few as they start and behind their sweeps.
func (s *search) sweep() (*fitted, error) {
	finalists := slices.Clone(s.started[:min(Finalists, len(s.started))])
	finalists = slices.DeleteFunc(finalists, func(f *fitted) bool { return math.IsInf(f.err, 1) })
	if len(finalists) == 0 {
		return nil, fmt.Errorf("none of %d candidates gave a finite error", len(s.started))
	}
	swept := make([]*fitted, len(finalists))
	err := s.sideBySide(len(finalists), func(e *blas.Engine, i int) error {
		swept[i] = &fitted{candidate: finalists[i].candidate, fit: finalists[i].fit}
		if err := swept[i].fit.Sweep(FinalSweeps); err != nil {
			return err
		}
		s.measure(e, swept[i])
		return nil
	})
	if err != nil {
		return nil, err
	}
	return slices.MinFunc(slices.Concat(finalists, swept), byError), nil
}

// reaches are those that are tried over so many distances: all of them, and shares.
func reaches(distances int) []int {
	out := []int{0}
	for n := distances / 4; n >= leastReach && len(out) < 4; n /= 4 {
		out = append(out, n)
	}
	return out
}

// Starts is how many factorizations of so many candidates are started in a context as a rule: half of the time the best of
// them is not the first, which was started at every reach before, and is then started at the others too.
func Starts(candidates, context int) float64 {
	return float64(candidates) + 1.5*float64(len(reaches(context))-1)
}

// leastReach is the shortest reach that is tried, in tokens.
const leastReach = 4

// statisticsPart is the leading whole sequences within the given number of tokens, at least one.
func statisticsPart(b *model.Batch, tokens int) (model.Batch, int) {
	n := 1
	for n < b.Sequences() && b.Starts[n+1] <= tokens {
		n++
	}
	return b.Slice(0, n), b.Starts[n]
}
