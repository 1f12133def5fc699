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
		one, err := SelfSamples(blas.New(1), net, 7, c.windows*want, c.window, 1, nil, nil)
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
		two, err := SelfSamples(blas.New(2), net, 7, c.windows*want, c.window, 1, nil, nil)
		if err != nil || !reflect.DeepEqual(one, two) {
			t.Errorf("two threads sample otherwise than one (%v)", err)
		}
	}
}
