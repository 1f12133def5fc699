package convert

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/ui"
)

// Progress is told how far a conversion has got. Phases follow one another; Done counts up within one.
type Progress interface {
	Phase(name string, total int64, unit ui.Unit)
	Done(done int64)
	// Note tells what is worth a line of its own.
	Note(text string)
}

// RunOptions say where a conversion goes and how it runs. They have no influence on the bytes of the output's tensors.
type RunOptions struct {
	// Out is the folder to make.
	Out string
	// SourcePath is the source as the user named it, for the record.
	SourcePath string
	// Version is the tool's, for the record; an unfinished output of another version is not resumed.
	Version string
	// Force replaces an output that exists, Resume continues an unfinished one.
	Force, Resume bool
	// Schedule is what is in memory at once. Each of its jobs takes its share of GOMAXPROCS processors; a calibration, which
	// comes before, takes them all.
	Schedule Schedule
	Progress Progress
	// Calibration is the token sequences of a calibration file; nil lets the source write its own.
	Calibration [][]int
}

// Outcome is a finished conversion.
type Outcome struct {
	Record *Record
	// Resumed is the number of layers that were taken over from an unfinished run.
	Resumed int
}

// Interrupted is the error of a conversion whose context was cancelled.
type Interrupted struct {
	Done, Layers int
	// Kept says that what is done, of the calibration too, is kept for [RunOptions.Resume].
	Kept bool
	// Cause is the context's.
	Cause error
}

// Error implements error.
func (e *Interrupted) Error() string {
	return fmt.Sprintf("interrupted after %d of %d layers", e.Done, e.Layers)
}

// Unwrap returns the cause.
func (e *Interrupted) Unwrap() error { return e.Cause }

// Run carries out a plan. Unless it succeeds there is no output. What is done of a run that was cancelled, that ran out of disk
// space, or that was itself a resumption stays for another one; after any other error nothing is left.
func Run(ctx context.Context, p *Plan, o RunOptions) (_ *Outcome, err error) {
	places := checkpoint.WriterOptions{Force: o.Force, Resume: o.Resume, Extra: p.filesBytes(), Protect: []string{p.src.Dir()}}
	// The digests of a large source take minutes, so what can be refused before them is.
	if err := checkpoint.Check(o.Out, p.Layout, places); err != nil {
		return nil, err
	}
	record, err := newRecord(p, o)
	if err != nil {
		return nil, err
	}
	// Only an unfinished output depends on the digests before its first layer is done, and only a calibration, which takes
	// hours, is worth showing them for.
	places.Pending = !o.Resume && p.Recipe.Calibration == nil
	if !places.Pending {
		if err := record.hash(ctx, p.src, o.Progress); err != nil {
			return nil, interruption(ctx, err, &Interrupted{Layers: p.Source.Layers, Kept: o.Resume})
		}
		if places.Identity, err = record.identity(); err != nil {
			return nil, err
		}
	}
	if err := p.checkTiedHead(); err != nil {
		return nil, err
	}
	w, err := checkpoint.Create(o.Out, p.Layout, places)
	if err != nil {
		return nil, err
	}
	r := &run{plan: p, writer: w, converter: newConverter(p, &o, w), progress: o.Progress, layers: make([]*Layer, p.Source.Layers)}
	outer := ctx
	ctx, cancel := context.WithCancel(outer)
	r.identified = make(chan struct{})
	if places.Pending {
		go func() {
			defer close(r.identified)
			if r.unidentified = r.identify(ctx, record); r.unidentified != nil {
				cancel() // there is no use in going on
			}
		}()
	} else {
		close(r.identified)
	}
	defer func() {
		cancel()
		<-r.identified
		if err == nil {
			return
		}
		ctx := outer
		if r.unidentified != nil && ctx.Err() == nil && errors.Is(err, context.Canceled) {
			err = r.unidentified // which is why
		}
		keep := o.Resume || (r.units > 0 || w.Keeps()) && (ctx.Err() != nil || diskFull(err))
		err = interruption(ctx, err, &Interrupted{Done: r.done, Layers: p.Source.Layers, Kept: keep})
		err = errors.Join(err, w.Abort(keep))
	}()
	resumed, err := r.resume()
	if err != nil {
		return nil, err
	}
	if o.Resume {
		o.Progress.Note(r.resumption())
	}
	if err := r.convert(ctx, o.Schedule.Jobs); err != nil {
		return nil, err
	}
	if <-r.identified; r.unidentified != nil {
		return nil, r.unidentified
	}
	for _, l := range r.layers {
		record.Layers = append(record.Layers, *l)
	}
	record.RopeError = p.RopeError // of the base that was chosen
	if err := writeFiles(w, p, record); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := w.Commit(); err != nil {
		return nil, err
	}
	return &Outcome{Record: record, Resumed: resumed}, nil
}

// identify takes the digests of the source and gives the writer its identity.
func (r *run) identify(ctx context.Context, record *Record) error {
	if err := record.hash(ctx, r.plan.src, nil); err != nil {
		return err
	}
	identity, err := record.identity()
	if err != nil {
		return err
	}
	return r.writer.Identify(identity)
}

// diskFull says that err is the disk's having no space left.
func diskFull(err error) bool {
	var e *checkpoint.Error
	return errors.As(err, &e) && e.Kind == checkpoint.NoSpace
}

// interruption returns i in place of err if the context is what ended the run.
func interruption(ctx context.Context, err error, i *Interrupted) error {
	if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		return err
	}
	i.Cause = context.Cause(ctx)
	return i
}

// identity stands for everything that the output depends on.
func (r *Record) identity() (string, error) {
	text, err := json.Marshal(struct {
		Tool           Tool
		Recipe         Recipe
		SHA256, Copied map[string]string
	}{r.Tool, r.Recipe, r.Source.SHA256, r.Source.Copied})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// checkTiedHead refuses a source that says its head is tied and holds another one: what it computes depends on who loads
// it.
func (p *Plan) checkTiedHead() error {
	names := &p.Source.Family.Tensors
	head, ok := p.src.Get(names.Head)
	if !ok || !p.Source.Tied {
		return nil
	}
	differ := func(got string) error {
		return &checkpoint.Error{
			Kind: checkpoint.BadSource, File: head.File, Tensor: head.Name, Got: got, Want: "the same as " + names.Embed + ", as tie_word_embeddings in config.json says",
			Hint: "if it is the head that counts, set tie_word_embeddings to false in config.json",
		}
	}
	embed, err := p.src.Want(names.Embed)
	if err != nil {
		return err
	}
	if !slices.Equal(head.Shape, embed.Shape) {
		return differ(fmt.Sprintf("shape %v", head.Shape))
	}
	defer head.Release()
	defer embed.Release()
	const rows = 256
	var a, b []float32
	for lo := 0; lo < p.Source.Vocab; lo += rows {
		hi := min(p.Source.Vocab, lo+rows)
		if a, err = head.Rows(lo, hi, a); err != nil {
			return err
		}
		if b, err = embed.Rows(lo, hi, b); err != nil {
			return err
		}
		if !slices.Equal(a, b) {
			return differ("other values")
		}
	}
	return nil
}

// run is a conversion under way.
type run struct {
	plan      *Plan
	writer    *checkpoint.Writer
	converter converter
	progress  Progress
	// identified is closed when the writer has its identity, or cannot have it for the reason in unidentified.
	identified   chan struct{}
	unidentified error

	layers []*Layer // nil for those to be done
	done   int      // layers that are
	units  int      // units in the journal
}

// resume takes over what an earlier run has finished and returns the number of layers.
func (r *run) resume() (int, error) {
	for _, u := range r.plan.units {
		payload, ok := r.writer.Done(u.name)
		if !ok {
			continue
		}
		r.units++
		if u.layer < 0 {
			continue
		}
		r.layers[u.layer] = new(Layer)
		if err := json.Unmarshal(payload, r.layers[u.layer]); err != nil {
			return 0, fmt.Errorf("journal: %s: %w", u.name, err)
		}
		r.done++
	}
	return r.done, nil
}

// resumption says what a resumption finds.
func (r *run) resumption() string {
	switch {
	case r.done > 0:
		return fmt.Sprintf("resuming: %d of %d layers are done", r.done, len(r.layers))
	case r.units > 0 || r.writer.Keeps():
		return "resuming: what is done of the calibration is kept"
	}
	return "nothing to resume: starting from the beginning"
}

// convert does the units that are not done: layers are computed up to jobs at once, and beside them what is only copied is
// written, so that the disk is busy from the start and no processor waits for it. The error is that of the first layer that
// failed, or else of the first copy.
func (r *run) convert(ctx context.Context, jobs int) error {
	if err := r.converter.prepare(ctx, blas.New(runtime.GOMAXPROCS(0)), r.progress, r.plan.Source.Layers-r.done); err != nil {
		return err
	}
	r.progress.Phase("converting", int64(r.plan.Source.Layers), "layers")
	r.progress.Done(int64(r.done))
	engine := blas.New(max(1, runtime.GOMAXPROCS(0)/jobs))
	var todo []*work
	for _, u := range r.plan.units {
		if _, ok := r.writer.Done(u.name); !ok {
			todo = append(todo, &work{unit: u, computed: make(chan struct{}), copied: make(chan struct{})})
		}
	}
	sides := []func(context.Context) error{
		func(ctx context.Context) error {
			return inParallel(ctx, jobs, len(todo), func(_ context.Context, i int) error { return r.computes(engine, todo[i]) })
		},
		func(ctx context.Context) error {
			return inParallel(ctx, jobs, len(todo), func(ctx context.Context, i int) error { return r.copies(ctx, todo[i]) })
		},
		func(ctx context.Context) error { return r.enters(ctx, todo) },
	}
	return inParallel(ctx, len(sides), len(sides), func(ctx context.Context, i int) error { return sides[i](ctx) })
}

// work is a unit of the output in the making.
type work struct {
	*unit
	// computed is closed when the layer's attention is written, copied when the tensors are that are as they were.
	computed, copied chan struct{}
	// record is the layer's, nil if the unit has none.
	record *Layer
}

// enters puts units into the journal, in their order, when they are written.
func (r *run) enters(ctx context.Context, todo []*work) error {
	for _, w := range todo {
		if err := ctx.Err(); err != nil {
			return err // a select takes what is written as readily
		}
		for _, written := range []chan struct{}{w.computed, w.copied, r.identified} {
			select {
			case <-written:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if r.unidentified != nil {
			return r.unidentified
		}
		var payload []byte
		if w.record != nil {
			var err error
			if payload, err = json.Marshal(w.record); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
		if err := r.writer.MarkDone(w.name, payload, w.names()...); err != nil {
			return err
		}
		r.units++
		if w.record != nil {
			r.layers[w.layer] = w.record
			r.done++
			r.progress.Done(int64(r.done))
		}
	}
	return nil
}

// computes converts and writes a unit's layer, if it has one.
func (r *run) computes(e *blas.Engine, w *work) error {
	if w.layer >= 0 {
		var err error
		if w.record, err = r.attention(e, w.unit); err != nil {
			return err
		}
		// The layer leaves a few large matrices. The collector, which works beside the program, may fall behind the next
		// layer's, so that both stand in memory.
		runtime.GC()
	}
	close(w.computed)
	return nil
}

// copies writes the tensors of a unit that are as they were.
func (r *run) copies(ctx context.Context, w *work) error {
	for _, s := range w.specs {
		if err := ctx.Err(); err != nil {
			return err
		}
		from, ok := w.copies[s.Name]
		if !ok {
			continue
		}
		if err := r.writer.CopyFrom(s.Name, from); err != nil {
			return err
		}
	}
	close(w.copied)
	return nil
}

// attention converts and writes the attention of a layer: what is known before its latent while that is computed.
func (r *run) attention(e *blas.Engine, u *unit) (*Layer, error) {
	p := r.plan
	emit := func(name string, parts func(func([]float32) error) error) error {
		return r.writer.WriteParts(arch.MLATensors.Layer(u.layer, name), parts)
	}
	var beside chan error // of what is written beside
	converted, err := r.converter.convert(e, u.layer, p.ContentRank(), func(a *outer) {
		beside = make(chan error, 1)
		go func() { beside <- outerTensors(p.Target, a, emit) }()
	})
	if beside != nil {
		err = cmp.Or(err, <-beside)
	} else if err == nil {
		err = outerTensors(p.Target, outerOf(converted.attention), emit)
	}
	if err != nil {
		return nil, err
	}
	err = latentTensors(p.Target, converted.attention, converted.inputNorm, p.TargetDType(), emit)
	record := converted.record // a copy: its address would keep the whole layer
	return &record, err
}

// filesBytes bounds the size of what is written besides tensors: copied files, configuration, record and model card.
func (p *Plan) filesBytes() int64 {
	size := int64(1<<16) + 1<<10*int64(p.Source.Layers)
	for _, f := range p.Files {
		if f.Copied {
			size += f.Bytes
		}
	}
	return size
}

// writeFiles writes everything that is no tensor.
func writeFiles(w *checkpoint.Writer, p *Plan, record *Record) error {
	config, err := p.Target.MarshalConfig(configDType[p.TargetDType()])
	if err != nil {
		return fmt.Errorf("config.json: %w", err)
	}
	if err := w.WriteFile("config.json", config); err != nil {
		return err
	}
	text, err := marshal(record)
	if err != nil {
		return fmt.Errorf("%s: %w", RecordFile, err)
	}
	if err := w.WriteFile(RecordFile, text); err != nil {
		return err
	}
	if err := w.WriteFile("README.md", modelCard(p, record)); err != nil {
		return err
	}
	for _, f := range p.Files {
		if !f.Copied {
			continue
		}
		path, err := filepath.Join(p.src.Dir(), f.Name), error(nil)
		if folder := filepath.Dir(f.Name); folder != "." {
			err = w.CopyInto(folder, path)
		} else {
			err = w.CopyFile(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// configDType is how config.json names the dtypes.
var configDType = map[checkpoint.DType]string{
	checkpoint.F32: "float32", checkpoint.F16: "float16", checkpoint.BF16: "bfloat16",
}
