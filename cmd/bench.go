package cmd

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/mlaconvert/mlaconvert/convert"
	"github.com/mlaconvert/mlaconvert/internal/bench"
	"github.com/mlaconvert/mlaconvert/internal/calibrate"
	"github.com/mlaconvert/mlaconvert/internal/report"
	"github.com/mlaconvert/mlaconvert/internal/ui"
)

// benchOptions are the flags of bench.
type benchOptions struct {
	Source string // "" for the machine alone
	Recipe convert.Recipe
	Tokens int // 0 for as many as the effort needs
	Jobs   int // as for convert
	Time   time.Duration
	JSON   bool
}

func newBenchCommand(s Streams) *cobra.Command {
	o := benchOptions{Recipe: convert.DefaultRecipe(), Time: 150 * time.Millisecond}
	c := &cobra.Command{
		Use:   "bench [SRC]",
		Short: "Measure this machine, and estimate conversions",
		Long: `Measure what this machine does in a second: products of matrices with the kernels that conversions use, memory, and
what else they consist of. With SRC, also how long its conversion is expected to take, with and without calibration, and
its peak memory.

The times are the operations counted from the shapes in SRC's headers, divided by the measured rates. Nothing is
converted. With SRC a file of 64 MiB is written to the working directory, where outputs go, and removed again.`,
		Example: `  mlaconvert bench
  mlaconvert bench SmolLM2-135M --rank 128`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.Source = args[0]
			}
			return runBench(c.Context(), o, s)
		},
	}
	f := c.Flags()
	f.Var(intFlag(&o.Recipe.Rank, 2, 1, fmt.Sprint(convert.DefaultRank)), "rank", "kv_lora_rank of the estimate, as for convert")
	f.Var(intFlag(&o.Recipe.RopeDim, 2, 2, ""), "rope-dim", "qk_rope_head_dim of the estimate, as for convert")
	f.Var(intFlag(&o.Tokens, 2, 1, ""), "calibration-tokens", "calibration tokens of the estimate, as for convert")
	f.Var(intFlag(&o.Jobs, 1, 1, ""), "jobs", "processors, and layers at once, in the estimate (default: as for convert)")
	f.DurationVar(&o.Time, "time", o.Time, "measure each figure for this long")
	f.BoolVar(&o.JSON, "json", false, "print the result as JSON")
	return c
}

// benchReport is what bench --json prints.
type benchReport struct {
	Schema string `json:"schema"`
	*bench.Result
	Source    string     `json:"source,omitempty"`
	Estimates []estimate `json:"estimates,omitempty"`
}

// estimate is what one way to convert the source is expected to take.
type estimate struct {
	// Conversion is "data-free" or the effort of a calibration.
	Conversion string `json:"conversion"`
	convert.Schedule
	Seconds         float64             `json:"seconds"`
	PeakMemoryBytes int64               `json:"peak_memory_bytes"`
	Phases          []convert.PhaseTime `json:"phases"`
}

func runBench(ctx context.Context, o benchOptions, s Streams) error {
	plans, schedules, closeSource, err := o.plans(ctx)
	if err != nil {
		return err
	}
	defer closeSource()
	measure := bench.Options{Time: o.Time}
	if len(plans) > 0 {
		measure.Dir = "."
	}
	r := benchReport{Schema: "mlaconvert.bench/1", Source: o.Source}
	if r.Result, err = bench.Measure(ctx, measure); err != nil {
		return err
	}
	threads := r.Threads
	if o.Jobs > 0 {
		threads = min(threads, o.Jobs)
	}
	for i, p := range plans {
		e := estimate{Conversion: convert.DataFree, Schedule: schedules[i], PeakMemoryBytes: p.PeakMemory(schedules[i])}
		if c := p.Recipe.Calibration; c != nil {
			e.Conversion = string(c.Effort)
		}
		e.Phases = p.Estimate(&r.Machine, threads, schedules[i].Jobs)
		for _, phase := range e.Phases {
			e.Seconds += phase.Seconds
		}
		r.Estimates = append(r.Estimates, e)
	}
	if o.JSON {
		return printJSON(s.Out, r)
	}
	return r.print(s.Out)
}

// plans are the conversions to estimate, with their schedules: none without a source, else the data-free one and one for each
// effort.
func (o *benchOptions) plans(ctx context.Context) (plans []*convert.Plan, schedules []convert.Schedule, closeSource func(), err error) {
	closeSource = func() {}
	if o.Source == "" {
		return nil, nil, closeSource, nil
	}
	ways := []string{convert.CalibrationNone}
	for _, e := range calibrate.Efforts {
		ways = append(ways, string(e))
	}
	var opened []*job
	closeSource = func() {
		for _, j := range opened {
			j.src.Close()
		}
	}
	for _, way := range ways {
		c := newConvertOptions()
		c.Source, c.Recipe, c.Jobs, c.Calibration.Tokens = o.Source, o.Recipe, o.Jobs, o.Tokens
		c.Out = "." // nothing is written, so that a source without a name needs none
		if way == convert.CalibrationNone {
			c.Calibration.Source = way
		} else {
			c.Calibration.Effort = way
		}
		j, err := prepare(ctx, &c, nil) // without a cache budget there is no progress to tell of
		if err != nil {
			closeSource()
			return nil, nil, nil, err
		}
		opened = append(opened, j)
		plans, schedules = append(plans, j.plan), append(schedules, j.schedule)
	}
	return plans, schedules, closeSource, nil
}

func (r *benchReport) print(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "kernels: %s, %d thread(s)\n\n", r.Kernels, r.Threads); err != nil {
		return err
	}
	t := &report.Table{Head: []string{"a second, in 10^9", "size", "of", "1 thread", fmt.Sprintf("%d threads", r.Threads)}, Names: true}
	if r.Threads == 1 {
		t.Head = t.Head[:4]
	}
	for _, f := range r.Figures {
		row := []string{f.Name, f.Size, f.Unit, giga(f.One), giga(f.All)}
		t.Add(row[:len(t.Head)]...)
	}
	if err := t.Text(w); err != nil {
		return err
	}
	if len(r.Estimates) == 0 {
		return nil
	}
	if _, err := fmt.Fprintf(w, "\nexpected of a conversion of %s\n", r.Source); err != nil {
		return err
	}
	return r.phases().Text(w)
}

// phases is the table of the estimates: a column for each, a row for each phase of any, in the order of the longest.
func (r *benchReport) phases() *report.Table {
	t := &report.Table{Head: []string{""}, Names: true}
	var names []string
	for _, e := range r.Estimates {
		t.Head = append(t.Head, e.Conversion)
		if len(e.Phases) > len(names) {
			names = nil
			for _, p := range e.Phases {
				names = append(names, p.Name)
			}
		}
	}
	row := func(name string, cell func(e *estimate) string) {
		cells := []string{name}
		for i := range r.Estimates {
			cells = append(cells, cell(&r.Estimates[i]))
		}
		t.Add(cells...)
	}
	for _, name := range names {
		row(name, func(e *estimate) string {
			i := slices.IndexFunc(e.Phases, func(p convert.PhaseTime) bool { return p.Name == name })
			if i < 0 {
				return "-"
			}
			return duration(e.Phases[i].Seconds)
		})
	}
	row("time", func(e *estimate) string { return duration(e.Seconds) })
	row("peak memory", func(e *estimate) string { return ui.FormatSize(e.PeakMemoryBytes) })
	row("layers at once", func(e *estimate) string { return fmt.Sprint(e.Jobs) })
	return t
}

// duration writes an expected time with about two digits, which is more than it deserves.
func duration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	unit := 10 * time.Millisecond
	for _, step := range []time.Duration{100 * time.Millisecond, time.Second, 10 * time.Second, time.Minute} {
		if d > 50*unit {
			unit = step
		}
	}
	return d.Round(unit).String()
}

// giga writes a rate in units of 10^9, or a dash for what was not measured.
func giga(rate float64) string {
	if rate == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3g", rate/1e9)
}
