package tokenizer

import (
	"slices"
	"sort"
	"unicode"
)

// runeRange is a range of code points, both ends included.
type runeRange struct{ lo, hi rune }

// runeSet is a set of code points: ranges in ascending order that neither overlap nor touch.
type runeSet []runeRange

var allRunes = runeSet{{0, unicode.MaxRune}}

func (s runeSet) contains(r rune) bool {
	i := sort.Search(len(s), func(i int) bool { return s[i].hi >= r })
	return i < len(s) && s[i].lo <= r
}

// newRuneSet puts ranges of any order, overlapping or not, into the form of a runeSet.
func newRuneSet(ranges ...runeRange) runeSet {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b runeRange) int { return int(a.lo - b.lo) })
	var out runeSet
	for _, r := range sorted {
		if n := len(out); n > 0 && r.lo <= out[n-1].hi+1 {
			out[n-1].hi = max(out[n-1].hi, r.hi)
		} else {
			out = append(out, r)
		}
	}
	return out
}

func (s runeSet) union(t runeSet) runeSet {
	return newRuneSet(append(slices.Clone([]runeRange(s)), t...)...)
}

// negate is the complement within all code points.
func (s runeSet) negate() runeSet {
	var out runeSet
	next := rune(0)
	for _, r := range s {
		if r.lo > next {
			out = append(out, runeRange{next, r.lo - 1})
		}
		next = r.hi + 1
	}
	if next <= unicode.MaxRune {
		out = append(out, runeRange{next, unicode.MaxRune})
	}
	return out
}

func (s runeSet) intersect(t runeSet) runeSet {
	return s.negate().union(t.negate()).negate()
}
