package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/mlaconvert/mlaconvert/convert"
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/engine"
	"github.com/mlaconvert/mlaconvert/internal/ui"
	"github.com/mlaconvert/mlaconvert/verify"
)

// convertOptions are the flags of convert, and of plan, which shares them. The zero value is not the default: see
// [newConvertOptions].
type convertOptions struct {
	Source      string
	Out         string // "" for the source's name with -mla, in the working directory
	Recipe      convert.Recipe
	Calibration calibrationOptions
	Jobs        int   // processors, and layers at once as far as they fit; 0 for all
	Memory      int64 // bytes, 0 for no limit
	// CacheBudget, if not 0, chooses rank and rope-dim for this share of the source's cache.
	CacheBudget float64

	Force, Resume, DryRun, Verify, JSON, Quiet bool
	// Planning says that nothing will be written.
	Planning bool
}

func newConvertOptions() convertOptions {
	return convertOptions{Recipe: convert.DefaultRecipe(), Calibration: newCalibrationOptions()}
}

// AddFlags adds the flags to a command.
func (o *convertOptions) AddFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&o.Out, "out", "o", "", "write to `DIR` (default: NAME-mla in the current directory)")
	f.Var(choiceFlag(&o.Recipe.Engine, engine.Names(), engine.Default), "engine", "write what this engine computes right, and refuse what it cannot")
	f.Var(intFlag(&o.Recipe.Rank, 2, 1, fmt.Sprint(convert.DefaultRank)), "rank", "kv_lora_rank: width of the cached latent, one row of it or more neutralising its norm")
	f.Var(intFlag(&o.Recipe.RopeDim, 2, 2, ""), "rope-dim", fmt.Sprintf("qk_rope_head_dim: width of the shared rotary key (default %d, or the head's width if that is smaller and the engine has kernels for it)", convert.DefaultRopeDim))
	f.Var(shareFlag(&o.CacheBudget), "cache-budget", "choose rank and rope-dim for this share of the source's cache, by the error on held-out calibration tokens")
	f.Var(choiceFlag(&o.Recipe.DType, convert.DTypes, convert.DTypeKeep), "dtype", "type of the tensors that are written; keep: as in the source")
	f.Var(intFlag(&o.Recipe.Context, 1, 1, ""), "context", "longest distance between a query and a key, in tokens, that is counted with (default: the source's context, at most 32768 or a calibration window)")
	o.Calibration.AddFlags(c)
	f.Var(sizeFlag(&o.Recipe.MaxShardBytes, "5GB"), "max-shard-size", "start a new weights file beyond this size")
	f.Var(intFlag(&o.Jobs, 1, 1, ""), "jobs", "processors to use, and layers at once (default: all processors, and as many layers as there is memory for)")
	f.Var(sizeFlag(&o.Memory, ""), "memory", "keep below this peak memory, with fewer layers and tokens at once, and the source's weights read more often")
	f.BoolVar(&o.Force, "force", false, "replace an output that exists")
	f.BoolVar(&o.Resume, "resume", false, "continue an unfinished output")
	f.BoolVar(&o.DryRun, "dry-run", false, "say what would be done, from the headers alone, and write nothing")
	f.BoolVar(&o.Verify, "verify", false, "verify the output against the source afterwards, on text that the source writes itself")
	f.BoolVar(&o.JSON, "json", false, "print the result as JSON")
	f.BoolVar(&o.Quiet, "quiet", false, "print neither progress nor a summary")
}

// checkFlags refuses flags that contradict each other.
func (o *convertOptions) checkFlags(c *cobra.Command) error {
	for _, name := range []string{"rank", "rope-dim"} {
		if o.CacheBudget > 0 && c.Flags().Changed(name) {
			return usagef("--cache-budget chooses --%s: give one of them", name)
		}
	}
	for _, name := range []string{"calibration-tokens", "effort", "seed"} {
		if o.Calibration.Source == convert.CalibrationNone && c.Flags().Changed(name) {
			return usagef("--%s is of a calibration, which --calibration none leaves out: give one of them", name)
		}
	}
	return nil
}

func newConvertCommand(s Streams) *cobra.Command {
	o := newConvertOptions()
	c := &cobra.Command{
		Use:   "convert SRC",
		Short: "Convert a checkpoint",
		Long: `Convert SRC, which is a model folder (config.json and *.safetensors), its model.safetensors.index.json, or one
.safetensors file with config.json beside it.

The output is a folder that engines load as DeepseekV3ForCausalLM. --engine names the one that it is for: vLLM, SGLang,
llama.cpp and ExLlama have no biases in attention, so the norm of the latent is neutralised in another way than for
transformers, mlx-lm and LMDeploy, and some compute fewer widths and RoPE scalings. It appears when it is whole: until then the
work lies in DIR.partial, which an interruption leaves for --resume.`,
		Example: `  mlaconvert convert SmolLM2-135M --rank 128
  mlaconvert convert model.safetensors --rank 512 --rope-dim 64 --out model-mla --verify
  mlaconvert convert SmolLM2-135M --cache-budget 0.5
  mlaconvert convert SmolLM2-135M --engine vllm
  mlaconvert convert big-model --memory 16GB --resume`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.Source = args[0]
			if err := o.checkFlags(c); err != nil {
				return err
			}
			return runConvert(c.Context(), o, s)
		},
	}
	o.AddFlags(c)
	return c
}

// convertReport is what convert --json prints.
type convertReport struct {
	Schema        string          `json:"schema"`
	Source        string          `json:"source"`
	Target        string          `json:"target"`
	Version       string          `json:"version"`
	Recipe        convert.Recipe  `json:"recipe"`
	Cache         convert.Cache   `json:"cache"`
	Dialect       string          `json:"dialect"`
	RopeError     float64         `json:"rope_error,omitempty"`
	DType         string          `json:"dtype"`
	WeightsBytes  int64           `json:"weights_bytes"`
	Layers        []convert.Layer `json:"layers"`
	ResumedLayers int             `json:"resumed_layers"`
	convert.Schedule
	Seconds      float64  `json:"seconds"`
	PeakRSSBytes int64    `json:"peak_rss_bytes,omitempty"`
	Warnings     []string `json:"warnings"`
	// Verification is what verify --json prints, with --verify.
	Verification *verify.Result `json:"verification,omitempty"`
}

func runConvert(ctx context.Context, o convertOptions, s Streams) error {
	if o.DryRun {
		return runPlan(ctx, o, s)
	}
	start := time.Now()
	defer limitMemory(o.Memory)()
	defer useProcessors(o.Jobs)()
	progress := newProgress(s.Err, o.Quiet)
	defer progress.End()
	job, err := prepare(ctx, &o, progress)
	if err != nil {
		return err
	}
	defer job.src.Close()
	// A calibration that does not fit would be killed after an hour; --memory says that one wants to try all the same.
	if job.tooLarge != nil {
		return job.tooLarge
	}
	if !o.Quiet {
		printWarnings(s.Err, job.plan.Warnings)
	}
	outcome, err := convert.Run(ctx, job.plan, convert.RunOptions{
		Out: o.Out, SourcePath: o.Source, Version: version(), Force: o.Force, Resume: o.Resume, Schedule: job.schedule, Progress: progress,
		Calibration: job.calibration,
	})
	if err != nil {
		return err
	}
	progress.End()
	report := convertReport{
		Schema: "mlaconvert.convert/1", Source: o.Source, Target: o.Out, Version: outcome.Record.Tool.Version,
		Recipe: outcome.Record.Recipe, Cache: outcome.Record.Cache, Dialect: outcome.Record.Dialect, RopeError: outcome.Record.RopeError, DType: outcome.Record.DType,
		WeightsBytes: job.plan.Layout.TotalBytes, Layers: outcome.Record.Layers, ResumedLayers: outcome.Resumed, Schedule: job.schedule,
		Seconds: time.Since(start).Seconds(), PeakRSSBytes: peakMemory(), Warnings: append([]string{}, job.plan.Warnings...),
	}
	if !o.JSON && !o.Quiet {
		if err := report.print(s.Out, !o.Verify); err != nil {
			return err
		}
	}
	if o.Verify {
		v := newVerifyOptions()
		v.Target, v.Source, v.Memory = o.Out, o.Source, o.Memory
		v.Trusted = true // its digests were taken for this very conversion
		var warnings []string
		if report.Verification, warnings, err = verifyCheckpoint(ctx, v, progress); err != nil {
			return fmt.Errorf("%s is complete, but it could not be verified: %w", o.Out, err)
		}
		progress.End()
		if !o.Quiet {
			printWarnings(s.Err, slices.Concat(warnings, report.Verification.Warnings))
		}
		if !o.JSON && !o.Quiet {
			if _, err := fmt.Fprintln(s.Out); err != nil {
				return err
			}
			if err := report.Verification.Text(s.Out); err != nil {
				return err
			}
		}
	}
	if o.JSON {
		if err := printJSON(s.Out, report); err != nil {
			return err
		}
	}
	if o.Verify {
		return verificationError(report.Verification)
	}
	return nil
}

// print writes the summary, with what to do next unless that is done already.
func (r *convertReport) print(w io.Writer, next bool) error {
	quality, figure := "discarded energy of keys and values", func(l *convert.Layer) float64 { return l.DiscardedShare }
	if r.Recipe.Calibration != nil {
		quality, figure = "held-out error of the attention", func(l *convert.Layer) float64 { return l.Calibration.Isolated }
	}
	mean, most := 0.0, 0
	for i := range r.Layers {
		mean += figure(&r.Layers[i]) / float64(len(r.Layers))
		if figure(&r.Layers[i]) > figure(&r.Layers[most]) {
			most = i
		}
	}
	_, err := fmt.Fprintf(w, `%s: %d layers, %s of weights in %s
cache: %d -> %d floats per token and layer (%.1f %%)
%s: %.3g %% on average, %.3g %% at most (layer %d)
`, r.Target, len(r.Layers), ui.FormatSize(r.WeightsBytes), time.Duration(r.Seconds*float64(time.Second)).Round(time.Second/10),
		r.Cache.Source, r.Cache.Target, 100*r.Cache.Ratio, quality, 100*mean, 100*figure(&r.Layers[most]), r.Layers[most].Layer)
	if err == nil && next {
		_, err = fmt.Fprintf(w, "next: mlaconvert verify %s\n", r.Target)
	}
	return err
}

// progress is what commands report to.
type progress interface {
	convert.Progress
	End()
}

// newProgress makes the progress of a command; a variable, so that tests can interrupt a command at a known moment.
var newProgress = func(w io.Writer, quiet bool) progress { return ui.NewProgress(w, quiet) }

// job is a planned conversion.
type job struct {
	src      *checkpoint.Source
	plan     *convert.Plan
	schedule convert.Schedule
	// tooLarge says that a calibration does not fit into the memory that is free.
	tooLarge *checkpoint.Error
	// calibration is the tokens of a calibration file, nil without one.
	calibration [][]int
}

// prepare opens the source, plans the conversion and fills in the options that depend on them. The caller closes the source.
func prepare(ctx context.Context, o *convertOptions, progress convert.Progress) (_ *job, err error) {
	if err := o.Recipe.Check(); err != nil {
		return nil, usageError{err}
	}
	src, err := checkpoint.Open(o.Source)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			src.Close()
		}
	}()
	if o.Out == "" {
		if o.Out, err = defaultOut(src.Dir()); err != nil {
			return nil, err
		}
	}
	sequences, err := o.Calibration.apply(&o.Recipe, src)
	if err != nil {
		return nil, err
	}
	if o.CacheBudget > 0 {
		switch {
		case o.DryRun:
			return nil, usagef("--cache-budget needs the weights, which --dry-run does not read: use plan without it")
		case len(engine.Lookup(o.Recipe.Engine).Widths) > 0:
			return nil, usagef("--cache-budget chooses any widths, %s has kernels for some: give --rank", o.Recipe.Engine)
		case o.Recipe.Calibration == nil:
			return nil, usagef("--cache-budget needs a calibration: --calibration self or a file")
		}
		if sequences, err = o.chooseWidths(ctx, src, sequences, progress); err != nil {
			return nil, err
		}
	}
	plan, err := convert.NewPlan(src, o.Recipe)
	if err != nil {
		return nil, err
	}
	j := &job{src: src, plan: plan, calibration: sequences}
	j.schedule, j.tooLarge, err = o.schedule(plan)
	return j, err
}

// chooseWidths puts rank and rope-dim into the recipe, for the cache budget. The tokens that it took are returned.
func (o *convertOptions) chooseWidths(ctx context.Context, src *checkpoint.Source, sequences [][]int, progress convert.Progress) ([][]int, error) {
	// The choice takes minutes, so what can be refused before it is.
	if !o.Planning {
		places := checkpoint.WriterOptions{Force: o.Force, Resume: o.Resume, Protect: []string{src.Dir()}}
		if err := checkpoint.Check(o.Out, new(checkpoint.Layout), places); err != nil {
			return nil, err
		}
	}
	choices, err := convert.NewBudget(src, &o.Recipe, o.CacheBudget)
	if err != nil {
		return nil, err
	}
	schedule, tooLarge, err := o.schedule(choices.Widest)
	if err != nil {
		return nil, err
	}
	if tooLarge != nil {
		return nil, tooLarge
	}
	return choices.Choose(ctx, &o.Recipe, sequences, schedule, blas.New(o.Jobs), progress)
}

// schedule is how a plan is carried out under the options.
func (o *convertOptions) schedule(plan *convert.Plan) (s convert.Schedule, tooLarge *checkpoint.Error, err error) {
	wanted, free := o.Jobs, availableMemory()
	if wanted == 0 {
		wanted = runtime.GOMAXPROCS(0)
		// Half of what is free: the prediction is none of what else will run. Where not even one layer fits, trying is up
		// to the user.
		if fit, err := plan.Schedule(wanted, free/2); err == nil {
			wanted = fit.Jobs
		} else {
			wanted = 1
		}
	}
	if s, err = plan.Schedule(wanted, o.Memory); err != nil {
		return s, nil, err
	}
	if o.Memory == 0 && plan.Recipe.Calibration != nil {
		// A calibration that does not fit would be killed after an hour; --memory says that one wants to try all the same.
		fit, err := plan.Schedule(wanted, free)
		switch {
		case err == nil:
			s = fit
		case errors.As(err, &tooLarge):
			tooLarge.Hint = "set --memory to try all the same, or use fewer --calibration-tokens, --effort fast or --calibration none"
		}
	}
	return s, tooLarge, nil
}

// defaultOut is NAME-mla in the working directory, NAME being that of the source's folder.
func defaultOut(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if dir == filepath.Dir(dir) {
		return "", usagef("a source without a folder name needs --out")
	}
	return filepath.Base(dir) + "-mla", nil
}
