package calibrate

import (
	"reflect"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

func TestSelfSamples(t *testing.T) {
	net, _ := network(t, nil) // context 128
	for _, c := range []struct{ window, windows, starts int }{{32, 10, 5}, {100, 4, 4}, {500, 3, 3}} {
		want := min(c.window, net.Context)
		o := Sampling{Tokens: c.windows * want, Window: c.window, Start: 7, Seed: 1}
		one, err := SelfSamples(blas.New(1), net, o)
		if err != nil {
			t.Fatal(err)
		}
		starts := 0
		for _, s := range one {
			if len(s) != want {
				t.Errorf("a window of %d tokens, want %d", len(s), want)
			}
			if s[0] == 7 {
				starts++
			}
		}
		if len(one) != c.windows || starts < c.starts {
			t.Errorf("window %d: %d windows, %d from the start token; want %d, %d", c.window, len(one), starts, c.windows, c.starts)
		}
		two, err := SelfSamples(blas.New(2), net, o)
		if err != nil || !reflect.DeepEqual(one, two) {
			t.Errorf("two threads sample otherwise than one (%v)", err)
		}
	}
}

// TestSamplingTogether: neither how many sequences are written side by side nor what a network saves of its memory has an
// influence on them.
func TestSamplingTogether(t *testing.T) {
	net, _ := network(t, nil)
	for _, c := range []struct{ windows, together, parts int }{{10, 2, 3}, {10, 1, 5}, {80, 20, 2}, {80, 1, 2}, {110, 20, 3}} {
		o := Sampling{Tokens: c.windows * 32, Window: 32, Start: 7, Seed: 2}
		want, err := SelfSamples(blas.New(1), net, o)
		if err != nil {
			t.Fatal(err)
		}
		o.Together = c.together
		if got := SampleParts(c.windows/2, c.together); got != c.parts {
			t.Errorf("%+v: %d parts", c, got)
		}
		if err := net.Save(32, true); err != nil {
			t.Fatal(err)
		}
		got, err := SelfSamples(blas.New(1), net, o)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%d windows, %d together: other samples", c.windows, c.together)
		}
		if err := net.Save(0, false); err != nil {
			t.Fatal(err)
		}
	}
}
