package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/testmodel"
)

// decode parses JSON that must hold nothing but v's fields.
func decode(t *testing.T, text []byte, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatal(err)
	}
	if d.More() {
		t.Fatal("more than one JSON value")
	}
}

// TestPlanIsExact: tensors, their types, shapes and files, and the bytes are what convert writes.
func TestPlanIsExact(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	if err := testmodel.New(testmodel.Tiny).Write(src, 2); err != nil {
		t.Fatal(err)
	}
	for _, shard := range []int64{5e9, 15000} {
		o := newConvertOptions()
		o.Calibration.Source = "none"
		o.Source, o.Out, o.JSON = src, filepath.Join(dir, "out"), true
		o.Recipe.Rank, o.Recipe.RopeDim, o.Recipe.MaxShardBytes, o.Recipe.DType = 10, 6, shard, "f16"
		o.Force = true
		var planned planReport
		var made convertReport
		var out, errs bytes.Buffer
		if err := runPlan(context.Background(), o, Streams{Out: &out, Err: &errs}); err != nil {
			t.Fatal(err)
		}
		decode(t, out.Bytes(), &planned)
		out.Reset()
		if err := runConvert(context.Background(), o, Streams{Out: &out, Err: &errs}); err != nil {
			t.Fatal(err)
		}
		decode(t, out.Bytes(), &made)

		dst := testmodel.OpenDir(t, o.Out)
		if len(planned.Tensors) != len(dst.Names()) {
			t.Errorf("%d tensors planned, %d written", len(planned.Tensors), len(dst.Names()))
		}
		for _, p := range planned.Tensors {
			got, ok := dst.Get(p.Name)
			if !ok || got.DType.String() != p.DType || !slices.Equal(got.Shape, p.Shape) || filepath.Base(got.File) != p.File {
				t.Errorf("planned %+v, written %+v", p, got)
			}
		}
		var bytesWritten int64
		names := dst.Files()
		if len(names) > 1 {
			names = append(names, "model.safetensors.index.json")
		}
		for _, name := range names {
			info, err := os.Stat(filepath.Join(o.Out, name))
			if err != nil {
				t.Fatal(err)
			}
			bytesWritten += info.Size()
		}
		if bytesWritten != planned.WeightsBytes || bytesWritten != made.WeightsBytes {
			t.Errorf("%d bytes planned, %d reported, %d written", planned.WeightsBytes, made.WeightsBytes, bytesWritten)
		}
		if planned.Cache.Target != 16 || planned.CacheBytes.Source != 3*32*2 || planned.CacheBytes.Target != 3*16*2 || made.Cache != planned.Cache {
			t.Errorf("cache %+v, %+v, %+v", planned.Cache, planned.CacheBytes, made.Cache)
		}
		if len(planned.Spectrum) != 3 || len(made.Layers) != 3 {
			t.Fatalf("%d layers planned, %d made", len(planned.Spectrum), len(made.Layers))
		}
		for i, s := range planned.Spectrum {
			if share := s.Discarded[1]; share.Rank != 10 || share.Share < made.Layers[i].DiscardedShare-1e-9 || share.Share > made.Layers[i].DiscardedShare+1e-9 {
				t.Errorf("layer %d: planned %+v, made %+v", i, s, made.Layers[i])
			}
		}
	}
}
