package bench

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// TestRate: units over the fastest run, of at least two runs and the time asked for.
func TestRate(t *testing.T) {
	runs := 0
	task := task{amount: 100}
	slow := func(*blas.Engine) error {
		runs++
		time.Sleep(time.Duration(5+5*(runs%2)) * time.Millisecond)
		return nil
	}
	rate, err := task.rate(context.Background(), nil, slow, 40*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	// A run of 5 ms is the fastest; how late the machine wakes us is its own affair.
	if rate > 100/0.005 || rate < 100/0.5 || runs < 3 {
		t.Errorf("%g a second in %d runs", rate, runs)
	}

	runs = 0
	if _, err := task.rate(context.Background(), nil, slow, 0); err != nil || runs != 2 {
		t.Errorf("%d runs, %v; want 2", runs, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := task.rate(ctx, nil, slow, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	broken := errors.New("broken")
	if _, err := task.rate(context.Background(), nil, func(*blas.Engine) error { return broken }, 0); !errors.Is(err, broken) {
		t.Errorf("failing: %v", err)
	}
}

func TestRatesOfEngines(t *testing.T) {
	m := Machine{Threads: 4}
	for k := range m.One {
		m.One[k], m.All[k] = 10, 40
	}
	for _, test := range []struct {
		got  float64
		want float64
	}{
		{m.Engine(1)[F64], 10}, {m.Engine(2)[F64], 20}, {m.Engine(4)[F64], 40}, {m.Engine(9)[F64], 40},
		{m.Engine(4)[Plain], 10},
		{m.SideBySide(4, 1)[F64], 40}, {m.SideBySide(2, 2)[F64], 40}, {m.SideBySide(2, 2)[Plain], 20},
		{m.SideBySide(4, 1)[Write], 10}, {m.SideBySide(9, 1)[Plain], 40},
	} {
		if test.got != test.want {
			t.Errorf("rate %g, want %g", test.got, test.want)
		}
	}
}

func TestWork(t *testing.T) {
	a, b := Work{F64: 6, Hash: 2}, Work{F64: 1, Exp: 4}
	sum := Sum(a, b.Times(3))
	if want := (Work{F64: 9, Hash: 2, Exp: 12}); sum != want {
		t.Errorf("sum %v, want %v", sum, want)
	}
	// 9/3 + 12/4, and no rate for hashing.
	if got := (&Rates{F64: 3, Exp: 4}).Seconds(sum); got != 6 {
		t.Errorf("%g s, want 6", got)
	}
	text, err := json.Marshal(sum)
	if want := `{"exp":12,"f64":9,"hash":2}`; err != nil || string(text) != want {
		t.Errorf("%s, %v; want %s", text, err, want)
	}
}
