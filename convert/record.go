package convert

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/mlaconvert/mlaconvert/internal/calibrate"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/ui"
)

// RecordFile is the name of the record in the folder of a converted checkpoint.
const RecordFile = "mlaconvert.json"

// RecordSchema is the schema of the record.
const RecordSchema = "mlaconvert.record/1"

// Record is what a converted checkpoint says about its own making. It holds no times, so that it is the same for every
// run of one recipe on one source.
type Record struct {
	Schema string `json:"schema"`
	Tool   Tool   `json:"tool"`
	// Command makes the same tensors again. It spells every setting out and leaves out what has no influence on them.
	Command string       `json:"command"`
	Recipe  Recipe       `json:"recipe"`
	Source  RecordSource `json:"source"`
	Cache   Cache        `json:"cache"`
	// Dialect is how the latent norm is neutralised: [DialectBias] or [DialectEnergy].
	Dialect string `json:"dialect"`
	// RopeError is the largest relative error of a rotary frequency, where the engine has not the source's scaling.
	RopeError float64 `json:"rope_error,omitempty"`
	// DType is what the converted tensors are stored in.
	DType  string  `json:"dtype"`
	Layers []Layer `json:"layers"`
}

// Tool is the program that made a checkpoint.
type Tool struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// RecordSource says which checkpoint was converted.
type RecordSource struct {
	// Path is the source as it was given, Absolute where that was.
	Path     string `json:"path"`
	Absolute string `json:"absolute"`
	// Architecture is the family's name.
	Architecture string `json:"architecture"`
	// SHA256 holds the digests of the weights, the index and the configuration, by file name, as
	// [checkpoint.Source.Hashes] gives them.
	SHA256 map[string]string `json:"sha256"`
	// Copied holds those of the files that were copied byte for byte.
	Copied map[string]string `json:"copied_sha256"`
}

// Cache compares the key/value caches, in floats per token and layer.
type Cache struct {
	Source int     `json:"source_floats_per_token_per_layer"`
	Target int     `json:"target_floats_per_token_per_layer"`
	Ratio  float64 `json:"ratio"`
}

// Layer is what the factorization of one layer kept.
type Layer struct {
	Layer int `json:"layer"`
	// Rank is the number of latent rows in use for keys and values; the constant channel, energy rows and rows of padding are
	// not counted.
	Rank int `json:"rank"`
	// Energy is that of the keys without a position and the values, in the weights of the factorization; Discarded is the
	// part of it that the latent does not carry, and DiscardedShare their ratio.
	Energy         float64 `json:"energy"`
	Discarded      float64 `json:"discarded"`
	DiscardedShare float64 `json:"discarded_share"`
	// RotaryShare is the share of the query-weighted key energy that the rotary slots carry.
	RotaryShare float64 `json:"rotary_share"`
	// Norm is how the latent norm was neutralised for an engine without biases, on inputs of which nothing is known; what a
	// calibrated conversion measured of it is in Calibration.
	Norm *calibrate.NormReport `json:"latent_norm,omitempty"`
	// Calibration is what a calibrated conversion measured instead: the fields above but Layer and Rank are zero then.
	Calibration *calibrate.LayerReport `json:"calibration,omitempty"`
}

// newRecord starts the record of a conversion, without the digests of the source's weights: see [Record.hash].
func newRecord(p *Plan, o RunOptions) (*Record, error) {
	absolute, err := filepath.Abs(o.SourcePath)
	if err != nil {
		return nil, err
	}
	r := &Record{
		Schema: RecordSchema, Tool: Tool{Name: "mlaconvert", Version: o.Version},
		Command: command(p, o.SourcePath), Recipe: p.Recipe, Cache: p.Cache, Dialect: p.Dialect(), DType: configDType[p.TargetDType()],
		Source: RecordSource{
			Path: o.SourcePath, Absolute: absolute, Architecture: p.Source.Family.Architectures[0],
			Copied: make(map[string]string),
		},
	}
	for _, f := range p.Files {
		if !f.Copied {
			continue
		}
		if r.Source.Copied[f.Name], err = hashFile(filepath.Join(p.src.Dir(), f.Name)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// hash reads the whole source for its digests. progress may be nil.
func (r *Record) hash(ctx context.Context, src *checkpoint.Source, progress Progress) error {
	began := false
	count := func(done, total int64) {
		if !began {
			began = true
			progress.Phase("hashing the source", total, ui.Bytes)
		}
		progress.Done(done)
	}
	if progress == nil {
		count = nil
	}
	var err error
	r.Source.SHA256, err = src.Hashes(ctx, count)
	return err
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// command is the command line that makes the same tensors again, on a Unix shell.
func command(p *Plan, sourcePath string) string {
	r := &p.Recipe
	calibration := "--calibration " + CalibrationNone
	if c := r.Calibration; c != nil {
		calibration = fmt.Sprintf("--calibration %s --calibration-tokens %d --effort %s --seed %d", shellQuote(c.Source), c.Tokens, c.Effort, c.Seed)
	}
	return fmt.Sprintf("mlaconvert convert %s --engine %s --rank %d --rope-dim %d --dtype %s --context %d --max-shard-size %s %s",
		shellQuote(sourcePath), r.Engine, r.Rank, r.RopeDim, r.DType, r.Context, ui.ExactSize(r.MaxShardBytes), calibration)
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./][A-Za-z0-9_@%+=:,./-]*$`)

func shellQuote(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// ReadRecord reads the record of a converted checkpoint.
func ReadRecord(dir string) (*Record, error) {
	path := filepath.Join(dir, RecordFile)
	bad := func(got, want string) error {
		return &checkpoint.Error{Kind: checkpoint.BadSource, File: path, Got: got, Want: want, Hint: "name a folder that mlaconvert wrote"}
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, bad("no such file", "the record of a converted checkpoint")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const most = 64 << 20
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if len(text) > most {
		return nil, bad(fmt.Sprintf("more than %d bytes", most), "the record of a converted checkpoint")
	}
	var r Record
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, bad(err.Error(), "the record of a converted checkpoint")
	}
	if r.Schema != RecordSchema {
		return nil, bad(fmt.Sprintf("schema %q", r.Schema), fmt.Sprintf("%q", RecordSchema))
	}
	return &r, nil
}

// marshal returns the text of a JSON file: indented, with its strings as they are, ending in a newline.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.Bytes(), err
}
