package cmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mlaconvert/mlaconvert/convert"
	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/report"
	"github.com/mlaconvert/mlaconvert/internal/tokenizer"
	"github.com/mlaconvert/mlaconvert/internal/tokens"
	"github.com/mlaconvert/mlaconvert/internal/ui"
	"github.com/mlaconvert/mlaconvert/verify"
)

const (
	defaultVerifyContext = 512
	defaultVerifyTokens  = 4096
	// verifyStream keeps the source's text for verify apart from the one that it writes for calibration: with the same
	// seed they would begin alike, and the conversion would be measured on what it was fitted to.
	verifyStream = 0x766572696679 << 16
	// maxCacheBytes bounds the key/value cache of the sequences that are sampled at a time, under a limit of memory to
	// maxCacheShare of it.
	maxCacheBytes = 2 << 30
	maxCacheShare = 0.25
)

// verifyOptions are the flags of verify. The zero value is not the default: see [newVerifyOptions].
type verifyOptions struct {
	Target string // "" for the only converted checkpoint in the working directory
	Source string // "" for the one that the target's record names
	Text   string // a file, or ""
	// IDsHint says how to give token ids in place of the text.
	IDsHint string
	Tokens  string // a file, or ""
	// Context is the length of the sequences; 0 for the default, which leaves those of a file of tokens as they are.
	Context    int
	MaxTokens  int
	Thresholds report.Thresholds
	Jobs       int   // 0 for all processors
	Memory     int64 // bytes; 0 for no limit, otherwise as little is held as can be
	Seed       uint64
	// Trusted leaves out the comparison of the source's files with the record: it was made a moment ago.
	Trusted bool

	JSON, Markdown, Quiet bool
}

func newVerifyOptions() verifyOptions {
	return verifyOptions{MaxTokens: defaultVerifyTokens, IDsHint: "give token ids with --tokens instead", Seed: 1}
}

// AddFlags adds the flags to a command.
func (o *verifyOptions) AddFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.Source, "source", "", "compare with `SRC` (default: the source that the checkpoint's record names)")
	f.StringVar(&o.Text, "text", "", "measure on a text `FILE`: the whole of a .txt, the \"text\" fields of a .jsonl")
	f.StringVar(&o.Tokens, "tokens", "", "measure on a `FILE` of token ids: .npy [sequences, length], or .jsonl with a list on each line")
	f.Var(intFlag(&o.Context, 2, 1, ""), "context", fmt.Sprintf("cut text and longer sequences into windows of N tokens (default: %d, or the model's context if that is smaller)", defaultVerifyContext))
	f.Var(intFlag(&o.MaxTokens, 2, 1, strconv.Itoa(defaultVerifyTokens)), "max-tokens", "use the first sequences that have no more than N tokens together")
	f.Var(numberFlag(&o.Thresholds.MaxKL, "X", 0), "max-kl", "fail if the mean KL divergence, in nats per token, is above X")
	f.Var(numberFlag(&o.Thresholds.MaxPerplexityIncrease, "PCT", -100), "max-ppl-increase", "fail if the perplexity is more than PCT percent above the source's")
	f.Var(intFlag(&o.Jobs, 1, 1, ""), "jobs", "threads (default: as many as there are processors)")
	f.Uint64Var(&o.Seed, "seed", o.Seed, "of the text that the source writes itself, `N`")
	f.BoolVar(&o.JSON, "json", false, "print the result as JSON")
	f.BoolVar(&o.Markdown, "markdown", false, "print the result as Markdown, for a model card")
	f.BoolVar(&o.Quiet, "quiet", false, "print neither progress nor a summary")
}

// numberFlag is an optional finite number of at least least.
func numberFlag(to **float64, kind string, least float64) *checked[*float64] {
	return &checked[*float64]{to: to, kind: kind, parse: func(s string) (*float64, error) {
		x, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) || x < least {
			return nil, fmt.Errorf("expected a number from %g on", least)
		}
		return &x, nil
	}}
}

func newVerifyCommand(s Streams) *cobra.Command {
	o := newVerifyOptions()
	c := &cobra.Command{
		Use:   "verify [DIR]",
		Short: "Measure what a conversion lost",
		Long: `Run the converted checkpoint DIR beside its source and compare them: the attention of every layer on the source's own
input, the residual stream, the distribution of the next token (KL divergence in nats, agreement of the first choice)
and the perplexity. The converted checkpoint is computed as an engine does, its latent norm included.

DIR may be left out if the current directory holds only one converted checkpoint. The source must be the one that the
checkpoint was made from: the files are compared with the SHA-256 in mlaconvert.json.

Text is cut into windows of --context tokens, of which the first are used, with no special tokens but those that the
tokenizer itself adds to a document. Without --text and --tokens the source writes the text itself: from BOS, at
temperature 1.

Every perplexity is over the tokens that have one before them in their window; KL is over all of them. Without a
threshold, only a figure that is not finite fails; it is null in JSON.`,
		Example: `  mlaconvert verify SmolLM2-135M-mla
  mlaconvert verify SmolLM2-135M-mla --text wiki.txt --context 512 --max-ppl-increase 10
  mlaconvert verify --source SmolLM2-135M --tokens ids.npy --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.Target = args[0]
			}
			return runVerify(c.Context(), o, s)
		},
	}
	o.AddFlags(c)
	return c
}

func runVerify(ctx context.Context, o verifyOptions, s Streams) error {
	if o.JSON && o.Markdown {
		return usagef("both --json and --markdown")
	}
	defer limitMemory(0)()
	defer useProcessors(o.Jobs)()
	progress := newProgress(s.Err, o.Quiet)
	defer progress.End()
	result, warnings, err := verifyCheckpoint(ctx, o, progress)
	if err != nil {
		return err
	}
	progress.End()
	if !o.Quiet {
		printWarnings(s.Err, slices.Concat(warnings, result.Warnings))
	}
	switch {
	case o.JSON:
		err = printJSON(s.Out, result)
	case o.Markdown:
		err = result.Markdown(s.Out)
	case !o.Quiet:
		err = result.Text(s.Out)
	}
	if err != nil {
		return err
	}
	return verificationError(result)
}

// verificationError is the error of a verification that failed, or nil.
func verificationError(v *verify.Result) error {
	if v.Passed {
		return nil
	}
	var lines []string
	for _, f := range v.Failures {
		lines = append(lines, "verification failed: "+f)
	}
	return &codedError{code: exitVerification, err: errors.New(strings.Join(lines, "\n"))}
}

// verifyCheckpoint compares a converted checkpoint with its source. Warnings are those about how, besides those of the
// result.
func verifyCheckpoint(ctx context.Context, o verifyOptions, p progress) (_ *verify.Result, warnings []string, err error) {
	if o.Text != "" && o.Tokens != "" {
		return nil, nil, usagef("both --text and --tokens")
	}
	if o.Target == "" {
		if o.Target, err = onlyConverted("."); err != nil {
			return nil, nil, err
		}
	}
	target, err := checkpoint.Open(o.Target)
	if err != nil {
		return nil, nil, err
	}
	defer target.Close()
	mla, err := arch.ParseMLA(target.Config())
	if err != nil {
		return nil, nil, fmt.Errorf("target %s: %w", target.Dir(), err)
	}
	record, err := readRecord(target.Dir(), o.Source != "")
	if err != nil {
		return nil, nil, err
	}
	if record != nil {
		mla.LatentEps = madeFor(record).Eps(&mla.Shape)
	}
	if o.Source == "" {
		if o.Source, err = recordedSource(target.Dir(), record); err != nil {
			return nil, nil, err
		}
	}
	source, err := checkpoint.Open(o.Source)
	if err != nil {
		return nil, nil, err
	}
	defer source.Close()
	m, err := arch.Parse(source.Config())
	if err != nil {
		return nil, nil, fmt.Errorf("source %s: %w", source.Dir(), err)
	}
	if err := sameShape(target.Dir(), source.Dir(), &mla.Shape, &m.Shape); err != nil {
		return nil, nil, err
	}

	v := verify.Options{Thresholds: o.Thresholds, Engine: blas.New(o.Jobs), Progress: p}
	given, err := readSequences(&o, source.Dir(), &m.Shape, &v.Data)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case record == nil:
		warnings = append(warnings, fmt.Sprintf("%s has no %s: nothing says that %s is its source", target.Dir(), convert.RecordFile, source.Dir()))
	case !o.Trusted:
		if err := checkHashes(ctx, source, record, p); err != nil {
			return nil, nil, err
		}
	}
	if v.Source, err = model.OpenSource(source, m); err != nil {
		return nil, nil, err
	}
	if v.Target, err = model.OpenMLA(target, mla); err != nil {
		return nil, nil, err
	}
	if o.Memory > 0 {
		for _, n := range []*model.Network{v.Source, v.Target} {
			if err := n.Save(m.Context, true); err != nil {
				return nil, nil, err
			}
		}
	}
	if given == nil {
		if given, err = sampleSequences(ctx, &o, &v, 4*float64(m.Layers)*float64(m.CacheFloats()), p); err != nil {
			return nil, nil, err
		}
	}
	v.Batch = model.NewBatch(given)
	result, err := verify.Run(ctx, v)
	if err != nil {
		return nil, nil, err
	}
	result.Source, result.Target = o.Source, o.Target
	if record != nil {
		addCalibration(result, record)
		advice, err := rankAdvice(ctx, source, record, float64(result.Perplexity.Ratio), p)
		if err != nil {
			return nil, nil, err
		}
		if advice != "" {
			result.Warnings = append(result.Warnings, advice)
		}
	}
	return result, warnings, nil
}

// addCalibration puts beside each layer what its conversion measured.
func addCalibration(v *verify.Result, r *convert.Record) {
	for i := range v.Layers {
		l := &v.Layers[i]
		if l.Layer >= len(r.Layers) || r.Layers[l.Layer].Calibration == nil {
			continue
		}
		c := r.Layers[l.Layer].Calibration
		l.Calibration = &report.Calibration{
			Candidate: c.Candidate.String(), Isolated: report.Number(c.Isolated), Start: report.Number(c.Start),
			Refit: report.Number(c.Refit), Polish: report.Number(c.Polish),
		}
	}
}

// onlyConverted finds the converted checkpoint in a folder, or takes the folder itself if it is one.
func onlyConverted(dir string) (string, error) {
	if _, err := os.Stat(filepath.Join(dir, convert.RecordFile)); err == nil {
		return dir, nil
	}
	listing, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var found []string
	for _, f := range listing {
		if strings.HasSuffix(f.Name(), ".partial") {
			continue // an unfinished one
		}
		if _, err := os.Stat(filepath.Join(dir, f.Name(), convert.RecordFile)); err == nil {
			found = append(found, f.Name())
		}
	}
	switch len(found) {
	case 0:
		return "", usagef("no converted checkpoint in the current directory")
	case 1:
		return filepath.Join(dir, found[0]), nil
	}
	return "", usagef("%d converted checkpoints in the current directory: %s", len(found), strings.Join(found, ", "))
}

// readRecord reads the target's record; it may be missing, and nil, if optional.
func readRecord(dir string, optional bool) (*convert.Record, error) {
	if _, err := os.Lstat(filepath.Join(dir, convert.RecordFile)); errors.Is(err, fs.ErrNotExist) && optional {
		return nil, nil
	}
	return convert.ReadRecord(dir)
}

// recordedSource is where the target's source is: where it was, or at the same path from here.
func recordedSource(target string, r *convert.Record) (string, error) {
	for _, path := range []string{r.Source.Absolute, r.Source.Path} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", &checkpoint.Error{
		Kind: checkpoint.BadSource, File: filepath.Join(target, convert.RecordFile), Got: fmt.Sprintf("the source %s, which is not there", r.Source.Absolute),
		Hint: "say where it is with --source",
	}
}

// sameShape refuses a target that cannot be a conversion of the source.
func sameShape(targetDir, sourceDir string, target, source *arch.Shape) error {
	for _, field := range []struct {
		name           string
		target, source int
	}{
		{"num_hidden_layers", target.Layers, source.Layers},
		{"hidden_size", target.Hidden, source.Hidden},
		{"vocab_size", target.Vocab, source.Vocab},
	} {
		if field.target != field.source {
			return &checkpoint.Error{
				Kind: checkpoint.BadSource, File: filepath.Join(targetDir, "config.json"), Tensor: field.name,
				Got: strconv.Itoa(field.target), Want: fmt.Sprintf("%d as in the source %s", field.source, sourceDir),
			}
		}
	}
	return nil
}

// checkHashes compares the source's files with the record.
func checkHashes(ctx context.Context, source *checkpoint.Source, r *convert.Record, p progress) error {
	started := false
	got, err := source.Hashes(ctx, func(done, total int64) {
		if !started {
			started = true
			p.Phase("hashing the source", total, ui.Bytes)
		}
		p.Done(done)
	})
	if err != nil {
		return err
	}
	want := r.Source.SHA256
	differ := func(name, got, want string) error {
		return &checkpoint.Error{
			Kind: checkpoint.BadSource, File: filepath.Join(source.Dir(), name), Got: got, Want: want,
			Hint: "the checkpoint was converted from something else than " + source.Dir() + "; name its source with --source, or convert again",
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		switch recorded, ok := want[name]; {
		case !ok:
			return differ(name, "a file that is not in "+convert.RecordFile, strings.Join(slices.Sorted(maps.Keys(want)), ", "))
		case recorded != got[name]:
			return differ(name, "SHA-256 "+got[name], recorded+" as in "+convert.RecordFile)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if _, ok := got[name]; !ok {
			return differ(name, "not part of the source", "a file with SHA-256 "+want[name]+" as in "+convert.RecordFile)
		}
	}
	return nil
}

// readSequences reads the tokens that the options name, and says in data what they are. It returns nil where the source
// is to write them.
func readSequences(o *verifyOptions, dir string, m *arch.Shape, data *report.Data) (_ [][]int, err error) {
	if o.Context > m.Context {
		return nil, usagef("--context %d: the model's context is %d", o.Context, m.Context)
	}
	options := tokens.Options{Context: o.Context, MaxTokens: o.MaxTokens, Vocab: m.Vocab}
	var sequences [][]int
	switch {
	case o.Text != "":
		data.Kind, data.File = report.TextFile, o.Text
		t, err := loadTokenizer(dir, o.IDsHint)
		if err != nil {
			return nil, err
		}
		if options.Context == 0 {
			options.Context = min(defaultVerifyContext, m.Context)
		}
		sequences, err = tokens.Text(o.Text, t, options)
		if err != nil {
			return nil, err
		}
		if slices.Contains(m.BOS, sequences[0][0]) {
			data.Start = "BOS"
		}
	case o.Tokens != "":
		data.Kind, data.File = report.TokenFile, o.Tokens
		sequences, err = tokens.IDs(o.Tokens, options)
		if err != nil {
			return nil, err
		}
	default:
		return nil, nil
	}
	longest := 0
	for _, s := range sequences {
		longest = max(longest, len(s))
	}
	switch {
	case longest > m.Context:
		return nil, usagef("%s: a sequence of %d tokens, longer than the model's context of %d; cut it with --context", data.File, longest, m.Context)
	case longest < 2:
		return nil, &checkpoint.Error{Kind: checkpoint.BadSource, File: data.File, Got: "no sequence of more than one token", Want: "tokens to predict"}
	}
	return sequences, nil
}

// loadTokenizer reads the tokenizer of a checkpoint. The hint is the way to do without it.
func loadTokenizer(dir, hint string) (*tokenizer.Tokenizer, error) {
	path := filepath.Join(dir, "tokenizer.json")
	t, err := tokenizer.Load(path)
	var wrong *tokenizer.Error
	switch {
	case err == nil:
		return t, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, &checkpoint.Error{Kind: checkpoint.BadSource, File: path, Got: "no such file", Want: "the tokenizer that a text needs", Hint: hint}
	case errors.As(err, &wrong):
		kind := checkpoint.BadSource
		if wrong.Unsupported {
			kind = checkpoint.Unsupported
		}
		return nil, &checkpoint.Error{Kind: kind, File: path, Tensor: wrong.Field, Got: wrong.Got, Want: wrong.Want, Hint: hint}
	}
	return nil, err
}

// sampleSequences lets the source write its own text, as many sequences at a time as their key/value cache allows, which
// takes cacheBytes for each token.
func sampleSequences(ctx context.Context, o *verifyOptions, v *verify.Options, cacheBytes float64, p progress) ([][]int, error) {
	length := o.Context
	if length == 0 {
		length = min(defaultVerifyContext, v.Source.Context)
	}
	length = min(length, o.MaxTokens)
	if length < 2 {
		return nil, usagef("the model's context is %d; it cannot write a text", v.Source.Context)
	}
	id, what := tokens.Start(&v.Source.Shape)
	v.Data = report.Data{Kind: report.SelfSampled, Start: what, Seed: &o.Seed}
	n := o.MaxTokens / length
	most := float64(maxCacheBytes)
	if o.Memory > 0 {
		most = min(most, maxCacheShare*float64(o.Memory))
	}
	batch := max(1, int(min(float64(n), most/(float64(length)*cacheBytes))))
	batches := (n + batch - 1) / batch
	steps := length - 1
	p.Phase(fmt.Sprintf("sampling %d sequences from %s", n, what), int64(batches*steps), "steps")
	var out [][]int
	for i := range batches {
		part, err := model.Sample(v.Engine, v.Source, model.SampleOptions{
			Sequences: min(batch, n-len(out)), Length: length, Start: id, Seed: (o.Seed ^ verifyStream) + uint64(i)<<32,
			Progress: func(done int) { p.Done(int64(i*steps + done)) },
			Stop:     ctx.Err,
		})
		if err != nil {
			return nil, err
		}
		out = append(out, part...)
	}
	return out, nil
}
