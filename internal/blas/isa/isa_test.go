package isa

import "testing"

func TestChoose(t *testing.T) {
	supported := []Level{Portable, AVX2}
	for _, tt := range []struct {
		name string
		want Level
		ok   bool
	}{
		{"", AVX2, true},
		{"portable", Portable, true},
		{"avx2", AVX2, true},
		{"avx512", AVX2, false},
		{"AVX2", AVX2, false},
	} {
		got, err := choose(tt.name, supported)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("choose(%q) = %v, %v; want %v, ok %v", tt.name, got, err, tt.want, tt.ok)
		}
	}
}
