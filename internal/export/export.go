package export

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/gguf"
	"github.com/mlaconvert/mlaconvert/internal/ui"
)

// DTypes lists what [Options.DType] may be, besides "", which is the type of the checkpoint's weights.
var DTypes = []string{"f32", "f16", "bf16", "q8_0"}

var ggufTypes = map[string]gguf.Type{"f32": gguf.F32, "f16": gguf.F16, "bf16": gguf.BF16, "q8_0": gguf.Q8_0}

// fileTypes are llama.cpp's numbers for a file of mostly one type (llama.h, llama_ftype).
var fileTypes = map[gguf.Type]uint32{gguf.F32: 0, gguf.F16: 1, gguf.Q8_0: 7, gguf.BF16: 32}

// quantizationVersion is ggml's GGML_QNT_VERSION, which files with quantized tensors must name.
const quantizationVersion = 2

// Options say how a checkpoint is written.
type Options struct {
	// DType is one of [DTypes], the type of the matrices; vectors are always F32.
	DType string
	// Name is general.name, what the model calls itself.
	Name string
	// Pre is llama.cpp's name of a byte-level pre-tokenizer that is not recognised; "" for none.
	Pre string
}

// Plan is a GGUF file that can be written.
type Plan struct {
	// DType is the type of the matrices, one of [DTypes]; Narrow lists those that are F16 because their rows are no multiple
	// of the block of Q8_0.
	DType  string
	Narrow []string
	// TokenizerModel and PreTokenizer are tokenizer.ggml.model and tokenizer.ggml.pre.
	TokenizerModel, PreTokenizer string
	// Tensors is their number, Bytes the size of the file.
	Tensors int
	Bytes   int64
	// Warnings say what llama.cpp will do otherwise than the checkpoint.
	Warnings []string

	dir    string // of the checkpoint
	layout *gguf.Layout
}

// NewPlan checks a converted checkpoint and lays out its GGUF file, from headers, configuration and tokenizer alone. All
// problems that it finds are joined in the error.
func NewPlan(src *checkpoint.Source, o Options) (*Plan, error) {
	m, err := arch.ParseMLA(src.Config())
	if err != nil {
		return nil, err
	}
	if errs := checkArchitecture(m); errs != nil {
		return nil, errors.Join(errs...)
	}
	if n := len(src.Names()); m.Layers > n {
		// The lists below grow with the number of layers, which a configuration can claim freely.
		return nil, &checkpoint.Error{
			Kind: checkpoint.BadSource, File: src.Dir(), Tensor: "num_hidden_layers", Got: fmt.Sprint(m.Layers),
			Want: fmt.Sprintf("layers that have tensors; there are %d tensors", n),
		}
	}
	p := &Plan{DType: o.DType, dir: src.Dir()}
	if p.DType == "" {
		if p.DType, err = storedDType(src); err != nil {
			return nil, err
		}
	}
	kind, ok := ggufTypes[p.DType]
	if !ok {
		return nil, fmt.Errorf("dtype %q: expected one of %v", p.DType, DTypes)
	}
	tensors, narrow, errs := weights(src, m, kind)
	var vocab *vocabulary
	// Only an embedding of that many rows shows that the vocabulary is as large as the configuration claims.
	if _, err := src.Want(arch.MLATensors.Embed, m.Vocab, m.Hidden); err == nil {
		vocab, err = readVocabulary(src, m, o.Pre)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	metadata := []gguf.KV{
		{Key: "general.architecture", Value: architecture},
		{Key: "general.type", Value: "model"},
		{Key: "general.name", Value: o.Name},
		{Key: "general.file_type", Value: fileTypes[kind]},
	}
	if kind == gguf.Q8_0 {
		metadata = append(metadata, gguf.KV{Key: "general.quantization_version", Value: uint32(quantizationVersion)})
	}
	metadata = append(metadata, architectureKeys(m)...)
	metadata = append(metadata, vocab.metadata()...)
	p.layout = gguf.Plan(metadata, tensors)
	p.Narrow, p.Warnings = narrow, vocab.warnings
	p.TokenizerModel, p.PreTokenizer = vocab.model, vocab.pre
	p.Tensors, p.Bytes = len(tensors), p.layout.Size
	return p, nil
}

// storedDType is the type that the checkpoint's queries are stored in.
func storedDType(src *checkpoint.Source) (string, error) {
	t, err := src.Want(arch.MLATensors.Layer(0, arch.MLATensors.Q))
	if err != nil {
		return "", err
	}
	return map[checkpoint.DType]string{checkpoint.F32: "f32", checkpoint.F16: "f16", checkpoint.BF16: "bf16"}[t.DType], nil
}

// Progress is told how far an export has got.
type Progress interface {
	Phase(name string, total int64, unit ui.Unit)
	Done(n int64)
}

// Run writes the file to path. It appears there when it is whole; if anything goes wrong, or ctx is done, nothing is left of
// it. force replaces a file that is there.
func (p *Plan) Run(ctx context.Context, path string, force bool, progress Progress) (err error) {
	read, err := p.read()
	if err != nil {
		return err
	}
	out, err := checkpoint.CreateFile(path, p.Bytes, force, read)
	if err != nil {
		return err
	}
	progress.Phase("writing", p.Bytes, ui.Bytes)
	err = p.layout.Write(out, func(written int64) error {
		progress.Done(written)
		return ctx.Err()
	})
	if err != nil {
		return errors.Join(rangeError(err, path), out.Abort())
	}
	return out.Commit(p.Bytes)
}

// read are the files of the checkpoint, which the output must not replace.
func (p *Plan) read() (files []string, err error) {
	listing, err := os.ReadDir(p.dir)
	for _, f := range listing {
		if filepath.Ext(f.Name()) != ".gguf" {
			files = append(files, filepath.Join(p.dir, f.Name()))
		}
	}
	return files, err
}

// rangeError explains a value that the type of its tensor cannot hold.
func rangeError(err error, path string) error {
	var e *gguf.RangeError
	if !errors.As(err, &e) {
		return err
	}
	return &checkpoint.Error{
		Kind: checkpoint.Unsupported, File: filepath.Base(path), Tensor: e.Tensor, Got: fmt.Sprintf("a value at index %d that is beyond the range of %s", e.Index, e.Type),
		Hint: "choose --dtype bf16 or f32",
	}
}
