package cmd

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/mlaconvert/mlaconvert/convert"
	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/calibrate"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/testmodel"
	"github.com/mlaconvert/mlaconvert/internal/ui"
	"github.com/mlaconvert/mlaconvert/verify"
)

// converted writes a tiny model and converts it.
func converted(t *testing.T) (source, target string) {
	t.Helper()
	dir := t.TempDir()
	source, target = filepath.Join(dir, "src"), filepath.Join(dir, "out")
	if err := testmodel.New(testmodel.Tiny).Write(source, 2); err != nil {
		t.Fatal(err)
	}
	o := newConvertOptions()
	o.Calibration.Source = "none"
	o.Source, o.Out, o.Recipe.Rank, o.Quiet = source, target, 12, true
	if err := runConvert(context.Background(), o, Streams{}); err != nil {
		t.Fatal(err)
	}
	return source, target
}

// overwrite fills a BF16 tensor of a single-file checkpoint with one value of changing sign.
func overwrite(t *testing.T, dir, tensor string, value float64) {
	t.Helper()
	path := filepath.Join(dir, "model.safetensors")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 8 + binary.LittleEndian.Uint64(file)
	var header map[string]struct {
		Offsets [2]uint64 `json:"data_offsets"`
	}
	if err := json.Unmarshal(file[8:n], &header); err != nil {
		t.Fatal(err)
	}
	at := header[tensor].Offsets
	values := make([]float32, (at[1]-at[0])/2)
	for i := range values {
		values[i] = float32(math.Copysign(value, float64(i%3)-0.5))
	}
	copy(file[n+at[0]:], testmodel.Encode("BF16", values))
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyNotFinite: a model that overflows has not passed, whatever the thresholds, and its JSON is still JSON.
func TestVerifyNotFinite(t *testing.T) {
	for tensor, says := range map[string]string{
		"model.layers.1.self_attn.o_proj.weight": "layer 1: the target's attention output is not finite",
		"lm_head.weight":                         "the logits of the target are not finite",
	} {
		_, target := converted(t)
		overwrite(t, target, tensor, 3e38)
		o := newVerifyOptions()
		o.Target, o.MaxTokens, o.JSON, o.Quiet = target, 64, true, true
		var out bytes.Buffer
		err := runVerify(context.Background(), o, Streams{Out: &out})
		if exitCode(err) != exitVerification || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want exit code %d and %q", tensor, err, exitVerification, says)
		}
		var got struct {
			Passed     *bool
			Perplexity struct{ Target *float64 }
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil || got.Passed == nil || *got.Passed || got.Perplexity.Target != nil {
			t.Errorf("%s: %v in %s", tensor, err, out.String())
		}
	}
}

// TestVerifyPoor: a conversion that lost nearly everything passes without thresholds, and a warning says so.
func TestVerifyPoor(t *testing.T) {
	_, target := converted(t)
	overwrite(t, target, "lm_head.weight", 5)
	o := newVerifyOptions()
	o.Target, o.MaxTokens = target, 64
	var out, messages bytes.Buffer
	if err := runVerify(context.Background(), o, Streams{Out: &out, Err: &messages}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(messages.String(), "mlaconvert: warning: the converted model is poor: its perplexity is ") || !strings.Contains(out.String(), "no thresholds given") {
		t.Errorf("got %s\n%s", messages.String(), out.String())
	}
}

// TestVerifySamples: the source writes other text for verify than for calibration, whatever the seeds.
func TestVerifySamples(t *testing.T) {
	source, _ := converted(t)
	src := testmodel.OpenDir(t, source)
	m, err := arch.Parse(src.Config())
	if err != nil {
		t.Fatal(err)
	}
	net, err := model.OpenSource(src, m)
	if err != nil {
		t.Fatal(err)
	}
	// Eight tokens after the first are enough to tell sequences apart: 64^8 are possible.
	seen := make(map[string]string)
	note := func(what string, sequences [][]int) {
		for _, s := range sequences {
			key := fmt.Sprint(s[:9])
			if other, ok := seen[key]; ok && other != what {
				t.Errorf("%s and %s share %s", what, other, key)
			}
			seen[key] = what
		}
	}
	silent := ui.NewProgress(nil, true)
	for seed := range uint64(4) {
		calibration, err := calibrate.SelfSamples(blas.New(1), net, calibrate.Sampling{Tokens: 256, Window: 32, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		note(fmt.Sprintf("calibration with seed %d", seed), calibration)
		o := verifyOptions{Seed: seed, MaxTokens: 256, Context: 32}
		verification, err := sampleSequences(context.Background(), &o, &verify.Options{Source: net, Engine: blas.New(1)}, 1, silent)
		if err != nil {
			t.Fatal(err)
		}
		// A cache with room for three sequences at a time gives as many.
		more, err := sampleSequences(context.Background(), &o, &verify.Options{Source: net, Engine: blas.New(1)}, maxCacheBytes/96, silent)
		if err != nil || len(more) != 8 || len(verification) != 8 {
			t.Fatalf("%d and %d sequences, %v; want 8", len(verification), len(more), err)
		}
		if !reflect.DeepEqual(more[:3], verification[:3]) || reflect.DeepEqual(more[3], more[0]) {
			t.Error("the batches of sequences do not follow on one another")
		}
		note(fmt.Sprintf("verification with seed %d", seed), verification)
	}
}

// TestCheckHashes: files that changed, came or went are each told apart.
func TestCheckHashes(t *testing.T) {
	source, target := converted(t)
	src := testmodel.OpenDir(t, source)
	silent := ui.NewProgress(nil, true)
	for name, c := range map[string]struct {
		change func(sums map[string]string)
		says   []string
	}{
		"same":    {func(map[string]string) {}, nil},
		"changed": {func(s map[string]string) { s["config.json"] = "00" }, []string{filepath.Join(source, "config.json"), "SHA-256 ", "00 as in mlaconvert.json"}},
		"more":    {func(s map[string]string) { delete(s, "model-00002-of-00002.safetensors") }, []string{"model-00002-of-00002.safetensors: a file that is not in mlaconvert.json"}},
		"fewer":   {func(s map[string]string) { s["model-00003.safetensors"] = "11" }, []string{"model-00003.safetensors: not part of the source", "SHA-256 11"}},
	} {
		record, err := convert.ReadRecord(target)
		if err != nil {
			t.Fatal(err)
		}
		c.change(record.Source.SHA256)
		err = checkHashes(context.Background(), src, record, silent)
		if len(c.says) == 0 {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || exitCode(err) != 10 {
			t.Errorf("%s: got %v", name, err)
			continue
		}
		for _, s := range c.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: got %q, want it to say %q", name, err, s)
			}
		}
	}
}

// TestRecordedSource: the source is sought where it was, then at the same path from here.
func TestRecordedSource(t *testing.T) {
	there := t.TempDir()
	t.Chdir(t.TempDir())
	if err := os.Mkdir("here", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ absolute, path, want string }{
		{there, "here", there},
		{filepath.Join(there, "gone"), "here", "here"},
		{filepath.Join(there, "gone"), "gone", ""},
		{"", "", ""},
	} {
		got, err := recordedSource("target", &convert.Record{Source: convert.RecordSource{Path: c.path, Absolute: c.absolute}})
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%+v: got %q, %v", c, got, err)
		}
	}
}
