package mla

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/mlaconvert/mlaconvert/svd"
)

// TestRefuses: what a caller can get wrong is an error that says what, not a panic.
func TestRefuses(t *testing.T) {
	r := rand.New(rand.NewPCG(31, 1))
	s := randomSource(r, 4, 2, 4, 20)
	st := randomStatistics(r, s, identity(20))
	m := DataFree(nil, s, ones(20), 64)
	slots := frequencies(2)
	fit := func(st *Statistics, rank int, frequencies []float64) error {
		_, err := NewFit(s, st, rank, frequencies, Candidate{QueryPower: 1, KeyWeight: 1}, nil)
		return err
	}
	convert := func(s *Source, m *Metrics, o Options) error {
		_, err := Convert(s, m, o)
		return err
	}
	find := func(s *Source, frequencies []float64, queries []svd.Matrix) error {
		_, err := FindSlots(nil, s, frequencies, m.Input, queries, SlotOptions{})
		return err
	}
	fewer, part := *st, *s
	fewer.Heads = st.Heads[:3]
	part.O = svd.Matrix{}
	nowhere := *m
	nowhere.Distances = nil
	short := *s
	short.K = s.K.Slice(0, 4, 0, 20)
	for _, c := range []struct {
		name string
		err  error
		says string
	}{
		{"slots of no frequencies", find(s, nil, m.Query), "no rotary frequencies"},
		{"slots of too few queries", find(s, slots, m.Query[:3]), "3 query heads, want 4"},
		{"slots of too few keys", find(&short, slots, m.Query), "k is 4 x 20"},
		{"conversion to no frequencies", convert(s, m, Options{Rank: 3}), "no rotary frequencies"},
		{"conversion to a negative rank", convert(s, m, Options{Rank: -1, Frequencies: slots}), "rank -1, want 0"},
		{"conversion without distances", convert(s, &nowhere, Options{Rank: 3, Frequencies: slots}), "without distances"},
		{"conversion without output", convert(&part, DataFree(nil, &part, ones(20), 64), Options{Rank: 3, Frequencies: slots}), "o is 0 x 0"},
		{"fit to no frequencies", fit(st, 3, nil), "no rotary frequencies"},
		{"fit to a negative rank", fit(st, -1, slots), "rank -1, want 1"},
		{"fit to no rank", fit(st, 0, slots), "rank 0, want 1"},
		{"fit to statistics of other heads", fit(&fewer, 3, slots), "3 heads, want 4"},
		{"basis of no directions", func() error {
			_, err := NewBasis(nil, s, st.Input, st.queries(), -1)
			return err
		}(), "-1 directions"},
		{"negative narrowing", func() error {
			res, err := Convert(s, m, Options{Rank: 3, Frequencies: slots})
			if err != nil {
				return err
			}
			_, err = res.Attention.Narrow(nil, -1, st.Input, m.Query)
			return err
		}(), "rank -1, want 0"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.says) {
			t.Errorf("%s: error %v, want one that says %q", c.name, c.err, c.says)
		}
	}
}
