package cmd

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/export"
	"github.com/mlaconvert/mlaconvert/internal/ui"
)

func newExportCommand(s Streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "export",
		Short: "Write a converted checkpoint in another format",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := c.Help(); err != nil {
				return err
			}
			return usagef("no format given")
		},
	}
	c.AddCommand(newExportGGUFCommand(s))
	return c
}

// exportOptions are the flags of export gguf.
type exportOptions struct {
	Source string
	Out    string // "" for the folder's name with the type, in the working directory
	export.Options

	Force, JSON, Quiet bool
}

// AddFlags adds the flags to a command.
func (o *exportOptions) AddFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&o.Out, "out", "o", "", "write to `FILE` (default: NAME-TYPE.gguf in the current directory)")
	f.Var(choiceFlag(&o.DType, export.DTypes, ""), "dtype", "type of the matrices (default: as in DIR)")
	f.StringVar(&o.Pre, "pre", "", "llama.cpp's `NAME` for the tokenizer's way of splitting text, where it is not recognised")
	f.BoolVar(&o.Force, "force", false, "replace a file that exists")
	f.BoolVar(&o.JSON, "json", false, "print the result as JSON")
	f.BoolVar(&o.Quiet, "quiet", false, "print neither progress nor a summary")
}

func newExportGGUFCommand(s Streams) *cobra.Command {
	var o exportOptions
	c := &cobra.Command{
		Use:   "gguf DIR",
		Short: "Write a GGUF file for llama.cpp",
		Long: `Write DIR, a converted checkpoint, as one GGUF file that llama.cpp and what is built on it load as architecture
deepseek2, tokenizer and chat template included. The checkpoint must be without biases: convert --engine llama.cpp makes
one. Vectors are written as f32; with --dtype q8_0, matrices whose rows are no multiple of 32 are written as f16. The file
appears when it is whole.`,
		Example: `  mlaconvert export gguf SmolLM2-135M-mla
  mlaconvert export gguf SmolLM2-135M-mla --dtype q8_0 --out smollm2-q8.gguf`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.Source = args[0]
			return runExportGGUF(c.Context(), o, s)
		},
	}
	o.AddFlags(c)
	return c
}

// exportReport is what export gguf --json prints.
type exportReport struct {
	Schema         string   `json:"schema"`
	Source         string   `json:"source"`
	File           string   `json:"file"`
	Version        string   `json:"version"`
	DType          string   `json:"dtype"`
	Tensors        int      `json:"tensors"`
	Bytes          int64    `json:"bytes"`
	TokenizerModel string   `json:"tokenizer_model"`
	PreTokenizer   string   `json:"pre_tokenizer"`
	F16Tensors     []string `json:"f16_tensors"`
	Seconds        float64  `json:"seconds"`
	PeakRSSBytes   int64    `json:"peak_rss_bytes,omitempty"`
	Warnings       []string `json:"warnings"`
}

func runExportGGUF(ctx context.Context, o exportOptions, s Streams) (err error) {
	start := time.Now()
	src, err := checkpoint.Open(o.Source)
	if err != nil {
		return err
	}
	defer src.Close()
	dir, err := filepath.Abs(src.Dir())
	if err != nil {
		return err
	}
	o.Name = filepath.Base(dir)
	plan, err := export.NewPlan(src, o.Options)
	if err != nil {
		return err
	}
	if o.Out == "" {
		if dir == filepath.Dir(dir) {
			return usagef("a checkpoint without a folder name needs --out")
		}
		o.Out = o.Name + "-" + strings.ToUpper(plan.DType) + ".gguf"
	}
	warnings := plan.Warnings
	if len(plan.Narrow) > 0 {
		warnings = append(warnings, fmt.Sprintf("%d matrices have rows that are no multiple of 32 and are written as f16, such as %s", len(plan.Narrow), plan.Narrow[0]))
	}
	if !o.Quiet {
		printWarnings(s.Err, warnings)
	}
	progress := newProgress(s.Err, o.Quiet)
	defer progress.End()
	if err := plan.Run(ctx, o.Out, o.Force, progress); err != nil {
		return err
	}
	progress.End()
	report := exportReport{
		Schema: "mlaconvert.export/1", Source: o.Source, File: o.Out, Version: version(), DType: plan.DType, Tensors: plan.Tensors,
		Bytes: plan.Bytes, TokenizerModel: plan.TokenizerModel, PreTokenizer: plan.PreTokenizer,
		F16Tensors: append([]string{}, plan.Narrow...), Seconds: time.Since(start).Seconds(), PeakRSSBytes: peakMemory(),
		Warnings: append([]string{}, warnings...),
	}
	switch {
	case o.JSON:
		return printJSON(s.Out, report)
	case o.Quiet:
		return nil
	}
	return report.print(s.Out)
}

func (r *exportReport) print(w io.Writer) error {
	_, err := fmt.Fprintf(w, `%s: %d tensors, %s as %s in %s
tokenizer: %s, pre-tokenizer %s
`, r.File, r.Tensors, ui.FormatSize(r.Bytes), r.DType, time.Duration(r.Seconds*float64(time.Second)).Round(time.Second/10), r.TokenizerModel, r.PreTokenizer)
	return err
}
