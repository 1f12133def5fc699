package cmd

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mlaconvert/mlaconvert/convert"
	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/engine"
)

// inspectOptions are the flags of inspect.
type inspectOptions struct {
	Target string
	Engine string // "" for the one that the checkpoint was made for
	JSON   bool
}

// AddFlags adds the flags to a command.
func (o *inspectOptions) AddFlags(c *cobra.Command) {
	f := c.Flags()
	f.Var(choiceFlag(&o.Engine, engine.Names(), ""), "engine", "look at it with this engine's eyes (default: the engine that it was made for)")
	f.BoolVar(&o.JSON, "json", false, "print the result as JSON")
}

func newInspectCommand(s Streams) *cobra.Command {
	var o inspectOptions
	c := &cobra.Command{
		Use:   "inspect DIR",
		Short: "Say whether an engine computes a converted checkpoint right",
		Long: `Compare the converted checkpoint DIR with what an inference engine computes: biases, the scaling of the rotary
embedding, the widths that it has kernels for, and what its loader trips over. It reads headers only.

Every limit is named with what was found, what the engine accepts, and the way out. The exit code is 0 if there is none
and 4 if there are any.`,
		Example: `  mlaconvert inspect SmolLM2-135M-mla --engine vllm
  mlaconvert inspect SmolLM2-135M-mla --engine llama.cpp --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			o.Target = args[0]
			return runInspect(o, s)
		},
	}
	o.AddFlags(c)
	return c
}

// inspectReport is what inspect --json prints.
type inspectReport struct {
	Schema     string `json:"schema"`
	Checkpoint string `json:"checkpoint"`
	Engine     string `json:"engine"`
	// MadeFor and Dialect are what the checkpoint's record says; empty without one.
	MadeFor string         `json:"made_for,omitempty"`
	Dialect string         `json:"dialect,omitempty"`
	Fits    bool           `json:"fits"`
	Limits  []engine.Limit `json:"limits"`
	Remarks []string       `json:"remarks"`
}

func runInspect(o inspectOptions, s Streams) error {
	src, err := checkpoint.Open(o.Target)
	if err != nil {
		return err
	}
	defer src.Close()
	m, err := arch.ParseMLA(src.Config())
	if err != nil {
		return fmt.Errorf("%s: %w", src.Dir(), err)
	}
	r := inspectReport{Schema: "mlaconvert.inspect/1", Checkpoint: o.Target, Engine: o.Engine, Limits: []engine.Limit{}, Remarks: []string{}}
	record, err := readRecord(src.Dir(), true)
	if err != nil {
		return err
	}
	if record != nil {
		r.MadeFor, r.Dialect = madeFor(record).Name, record.Dialect
	}
	if r.Engine == "" {
		if r.Engine = r.MadeFor; r.Engine == "" {
			r.Engine = engine.Default
		}
	}
	e := engine.Lookup(r.Engine)
	r.Limits = append(append(append(r.Limits, e.Check(m)...), e.CheckConfig(src.Config())...), e.CheckTensors(src.Names(), m.Tied)...)
	if e.Remarks != nil {
		r.Remarks = append(r.Remarks, e.Remarks(m)...)
	}
	if record != nil && record.RopeError > 0 {
		r.Remarks = append(r.Remarks, fmt.Sprintf("its RoPE scaling is YaRN in place of the source's: frequencies are off by %.3g %% at most, and the layers were made for them", 100*record.RopeError))
	}
	r.Fits = len(r.Limits) == 0
	if o.JSON {
		err = printJSON(s.Out, r)
	} else {
		err = r.print(s.Out)
	}
	if err != nil || r.Fits {
		return err
	}
	var lines []string
	for i := range r.Limits {
		lines = append(lines, fmt.Sprintf("%s does not compute %s right: %s", e.Name, o.Target, r.Limits[i].String()))
	}
	limits := &codedError{code: exitLimits, err: errors.New(strings.Join(lines, "\n"))}
	if !o.JSON {
		limits.hint = r.Limits[0].WayOut
	}
	return limits
}

// dialectWords say how the latent norm is neutralised.
var dialectWords = map[string]string{convert.DialectBias: "a bias", convert.DialectEnergy: "energy rows"}

// madeFor is the engine that a checkpoint was made for; records of before there was a choice name none.
func madeFor(r *convert.Record) *engine.Engine {
	if e := engine.Lookup(r.Recipe.Engine); e != nil {
		return e
	}
	return engine.Lookup(engine.Default)
}

// print writes what is right and the remarks; the limits are the error.
func (r *inspectReport) print(w io.Writer) error {
	var b strings.Builder
	if r.MadeFor != "" {
		fmt.Fprintf(&b, "%s: made for %s", r.Checkpoint, r.MadeFor)
		if r.Dialect != "" {
			fmt.Fprintf(&b, ", its latent norm neutralised by %s", dialectWords[r.Dialect])
		}
		fmt.Fprintln(&b)
	}
	if r.Fits {
		fmt.Fprintf(&b, "%s computes it right\n", r.Engine)
	}
	for _, l := range r.Limits {
		fmt.Fprintf(&b, "%s: %s\n  accepted by %s: %s\n  way out: %s\n", l.Field, l.Found, r.Engine, l.Accepted, l.WayOut)
	}
	for _, remark := range r.Remarks {
		fmt.Fprintf(&b, "note: %s\n", remark)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
