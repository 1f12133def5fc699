package cmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mlaconvert/mlaconvert/convert"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/report"
	"github.com/mlaconvert/mlaconvert/internal/ui"
)

func newPlanCommand(s Streams) *cobra.Command {
	o := newConvertOptions()
	c := &cobra.Command{
		Use:   "plan SRC",
		Short: "Say what convert would do",
		Long: `Say what convert would do with SRC: shapes, cache per token before and after, bytes, peak memory, what becomes of every
tensor and file, and the error spectrum of every layer. It takes the flags of convert and writes nothing.

What the headers tell is printed at once; the spectrum needs a factorization of every layer. convert --dry-run stops
before it.`,
		Example: `  mlaconvert plan SmolLM2-135M --rank 128
  mlaconvert plan SmolLM2-135M --rank 256 --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.Source = args[0]
			if err := o.checkFlags(c); err != nil {
				return err
			}
			return runPlan(c.Context(), o, s)
		},
	}
	o.AddFlags(c)
	return c
}

// planReport is what plan --json prints.
type planReport struct {
	Schema       string         `json:"schema"`
	Source       string         `json:"source"`
	Target       string         `json:"target"`
	Recipe       convert.Recipe `json:"recipe"`
	Cache        convert.Cache  `json:"cache"`
	CacheBytes   cacheBytes     `json:"cache_bytes_per_token"`
	Geometry     geometry       `json:"geometry"`
	Dialect      string         `json:"dialect"`
	RopeError    float64        `json:"rope_error,omitempty"`
	SourceBytes  int64          `json:"source_weights_bytes"`
	WeightsBytes int64          `json:"weights_bytes"`
	convert.Schedule
	PeakMemoryBytes int64              `json:"peak_memory_bytes"`
	Warnings        []string           `json:"warnings"`
	Spectrum        []convert.Spectrum `json:"spectrum,omitempty"`
	Ledger          []convert.Entry    `json:"ledger"`
	Files           []convert.File     `json:"files"`
	Tensors         []plannedTensor    `json:"tensors"`
}

// cacheBytes is the cache of all layers, in the dtype of the attention tensors.
type cacheBytes struct {
	Source int64 `json:"source"`
	Target int64 `json:"target"`
}

type geometry struct {
	Architecture string `json:"architecture"`
	Layers       int    `json:"layers"`
	Hidden       int    `json:"hidden_size"`
	Heads        int    `json:"num_attention_heads"`
	KVHeads      int    `json:"num_key_value_heads"`
	HeadDim      int    `json:"head_dim"`
	SourceDType  string `json:"source_dtype"`

	KVLoraRank int    `json:"kv_lora_rank"`
	QKNoPE     int    `json:"qk_nope_head_dim"`
	QKRope     int    `json:"qk_rope_head_dim"`
	VHead      int    `json:"v_head_dim"`
	DType      string `json:"dtype"`
}

type plannedTensor struct {
	Name  string `json:"name"`
	DType string `json:"dtype"`
	Shape []int  `json:"shape"`
	File  string `json:"file"`
}

func runPlan(ctx context.Context, o convertOptions, s Streams) error {
	defer limitMemory(o.Memory)()
	defer useProcessors(o.Jobs)()
	o.Planning = true
	progress := newProgress(s.Err, o.Quiet)
	defer progress.End()
	job, err := prepare(ctx, &o, progress)
	if err != nil {
		return err
	}
	progress.End()
	defer job.src.Close()
	planned := newPlanReport(job, &o)
	if !o.JSON {
		if err := planned.printHeaders(s.Out, job.plan); err != nil {
			return err
		}
	}
	if !o.DryRun {
		planned.Spectrum, err = job.plan.Spectra(ctx, job.plan.SpectrumRanks(), job.schedule.Jobs, progress)
		progress.End()
		if err != nil {
			return err
		}
	}
	if o.JSON {
		return printJSON(s.Out, planned)
	}
	return planned.printSpectrum(s.Out)
}

func newPlanReport(job *job, o *convertOptions) *planReport {
	p := job.plan
	m := p.Source
	r := &planReport{
		Schema: "mlaconvert.plan/1", Source: o.Source, Target: o.Out, Recipe: p.Recipe, Cache: p.Cache, Dialect: p.Dialect(), RopeError: p.RopeError,
		CacheBytes: cacheBytes{
			Source: int64(m.Layers) * int64(p.Cache.Source) * int64(p.DType.Size()),
			Target: int64(m.Layers) * int64(p.Cache.Target) * int64(p.TargetDType().Size()),
		},
		Geometry: geometry{
			Architecture: m.Family.Architectures[0], Layers: m.Layers, Hidden: m.Hidden, Heads: m.Heads, KVHeads: m.KVHeads,
			HeadDim: m.HeadDim, SourceDType: p.DType.String(),
			KVLoraRank: p.Target.Rank, QKNoPE: p.Target.NoPEDim, QKRope: p.Target.RopeDim, VHead: p.Target.VDim, DType: p.TargetDType().String(),
		},
		SourceBytes: p.SourceBytes, WeightsBytes: p.Layout.TotalBytes, Schedule: job.schedule, PeakMemoryBytes: p.PeakMemory(job.schedule),
		Warnings: slices.Concat([]string{}, p.Warnings), Ledger: p.Ledger, Files: p.Files,
	}
	if _, err := os.Lstat(o.Out); err == nil && !o.Force {
		r.Warnings = append(r.Warnings, o.Out+" exists; convert will refuse to replace it without --force")
	}
	if job.tooLarge != nil {
		r.Warnings = append(r.Warnings, fmt.Sprintf("convert will refuse: %v; %s", job.tooLarge, job.tooLarge.Hint))
	}
	for _, shard := range p.Layout.Shards {
		for _, t := range shard.Tensors {
			r.Tensors = append(r.Tensors, plannedTensor{t.Name, t.DType.String(), t.Shape, shard.File})
		}
	}
	return r
}

// printHeaders writes what is known without the weights.
func (r *planReport) printHeaders(w io.Writer, p *convert.Plan) error {
	g := &r.Geometry
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "source\t%s: %s, %d layers, hidden %d, %d query and %d KV heads x %d, %s, %s\n",
		r.Source, g.Architecture, g.Layers, g.Hidden, g.Heads, g.KVHeads, g.HeadDim, g.SourceDType, ui.FormatSize(r.SourceBytes))
	fmt.Fprintf(t, "target\t%s: kv_lora_rank %d, qk_nope_head_dim %d, qk_rope_head_dim %d, v_head_dim %d, %s\n",
		r.Target, g.KVLoraRank, g.QKNoPE, g.QKRope, g.VHead, g.DType)
	fmt.Fprintf(t, "engine\t%s, its latent norm neutralised by %s\n", p.Engine.Name, dialectWords[p.Dialect()])
	fmt.Fprintf(t, "cache\t%d -> %d floats per token and layer (%.1f %%), %s -> %s per token\n",
		r.Cache.Source, r.Cache.Target, 100*r.Cache.Ratio, ui.FormatSize(r.CacheBytes.Source), ui.FormatSize(r.CacheBytes.Target))
	count := make(map[convert.Action]int)
	for _, e := range r.Ledger {
		count[e.Action]++
	}
	fmt.Fprintf(t, "tensors\t%d: %d converted, %d copied, %d dropped; %d in the output\n",
		len(r.Ledger), count[convert.Converted], count[convert.Copied], count[convert.Dropped], len(r.Tensors))
	fmt.Fprintf(t, "weights\t%s in %d file(s)\n", ui.FormatSize(r.WeightsBytes), len(p.Layout.Shards))
	fmt.Fprintf(t, "memory\tabout %s with %s\n", ui.FormatSize(r.PeakMemoryBytes), r.Schedule)
	var copied, left []string
	for _, f := range r.Files {
		if f.Copied {
			copied = append(copied, f.Name)
		} else if f.Name != "config.json" {
			left = append(left, fmt.Sprintf("%s (%s)", f.Name, f.Reason))
		}
	}
	for _, files := range []struct {
		title string
		names []string
	}{{"copied", copied}, {"left", left}} {
		if len(files.names) > 0 {
			fmt.Fprintf(t, "%s\t%s\n", files.title, strings.Join(files.names, ", "))
		}
	}
	for _, e := range r.Ledger {
		if e.Action == convert.Dropped {
			fmt.Fprintf(t, "dropped\t%s: %s\n", e.Tensor, e.Reason)
		}
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(t, "warning\t%s\n", warning)
	}
	fmt.Fprintf(t, "\nconverted, per layer\t\n")
	for _, spec := range p.AttentionSpecs() {
		fmt.Fprintf(t, "  %s\t%s %s\n", spec.Name, spec.DType, shape(spec))
	}
	return t.Flush()
}

func shape(s checkpoint.Spec) string {
	return strings.ReplaceAll(fmt.Sprint(s.Shape), " ", ", ")
}

// printSpectrum writes a table of the shares that are discarded.
func (r *planReport) printSpectrum(w io.Writer) error {
	if len(r.Spectrum) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nshare of the key energy that the rotary slots carry, and of the energy of the other keys and the values that is\ndiscarded, by rank\n")
	t := &report.Table{Head: []string{"layer", "rotary"}}
	for _, d := range r.Spectrum[0].Discarded {
		t.Head = append(t.Head, fmt.Sprint(d.Rank))
	}
	for _, l := range r.Spectrum {
		row := []string{fmt.Sprint(l.Layer), fmt.Sprintf("%.2f %%", 100*l.RotaryShare)}
		for _, d := range l.Discarded {
			row = append(row, fmt.Sprintf("%.3g %%", 100*d.Share))
		}
		t.Add(row...)
	}
	return t.Text(w)
}
