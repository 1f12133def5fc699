package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/nlpodyssey/safetensors"
)

func TestPlanLayoutBytes(t *testing.T) {
	l, err := PlanLayout([]Spec{
		{"b", BF16, []int{3}},
		{"a", F32, []int{2, 1}},
		{"s", F16, nil},
		{"e", F32, []int{0}},
	}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Shards) != 1 || l.Shards[0].File != "model.safetensors" || l.Index != nil {
		t.Fatalf("%+v", l)
	}
	text := `{"__metadata__":{"format":"pt"},` +
		`"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},` +
		`"e":{"dtype":"F32","shape":[0],"data_offsets":[8,8]},` +
		`"b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]},` +
		`"s":{"dtype":"F16","shape":[],"data_offsets":[14,16]}}`
	text += strings.Repeat(" ", (8-len(text)%8)%8)
	want := string(binary.LittleEndian.AppendUint64(nil, uint64(len(text)))) + text
	if got := string(l.Shards[0].Header); got != want {
		t.Errorf("header\n%q\nwant\n%q", got, want)
	}
	if size := int64(len(want) + 16); l.TotalBytes != size || l.Shards[0].Size != size {
		t.Errorf("%d bytes, want %d", l.TotalBytes, size)
	}
	file, b, ok := l.Lookup("b")
	if !ok || file != "model.safetensors" || b.Offset != int64(len(want))+8 || b.Size != 6 {
		t.Errorf("b at %+v in %s", b, file)
	}
	if _, _, ok := l.Lookup("x"); ok {
		t.Error("found a tensor that is not planned")
	}
}

func TestPlanLayoutShards(t *testing.T) {
	for _, c := range []struct {
		sizes []int // in units of 10 bytes
		max   int64
		want  string
	}{
		{[]int{6, 6, 2, 6, 2, 2}, 100, "0|1 2|3 4 5"}, // the example of huggingface_hub's documentation
		{[]int{5, 5}, 100, "0 1"},
		{[]int{5, 5, 1}, 100, "0 1|2"},
		{[]int{1, 50, 1}, 100, "0|1|2"},
		{[]int{50}, 100, "0"},
		{[]int{0, 50, 0}, 100, "0|1|2"},
		{[]int{1, 1, 1}, 1, "0|1|2"},
	} {
		var specs []Spec
		for i, n := range c.sizes {
			specs = append(specs, Spec{fmt.Sprint(i), BF16, []int{n, 5}})
		}
		l, err := PlanLayout(specs, c.max)
		if err != nil {
			t.Fatal(err)
		}
		var groups []string
		for i, s := range l.Shards {
			var names []string
			for _, tensor := range s.Tensors {
				names = append(names, tensor.Name)
			}
			groups = append(groups, strings.Join(names, " "))
			if want := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(l.Shards)); len(l.Shards) > 1 && s.File != want {
				t.Errorf("shard %s, want %s", s.File, want)
			}
		}
		if got := strings.Join(groups, "|"); got != c.want {
			t.Errorf("sizes %v at most %d: %s, want %s", c.sizes, c.max, got, c.want)
		}
	}
}

func TestPlanLayoutIndex(t *testing.T) {
	l, err := PlanLayout([]Spec{{"model.b", BF16, []int{4}}, {"a<&>é", F32, []int{1, 2}}}, 8)
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "metadata": {
    "total_parameters": 6,
    "total_size": 16
  },
  "weight_map": {
    "a<&>é": "model-00002-of-00002.safetensors",
    "model.b": "model-00001-of-00002.safetensors"
  }
}
`
	if string(l.Index) != want {
		t.Errorf("index\n%s\nwant\n%s", l.Index, want)
	}
	if n := l.Shards[0].Size + l.Shards[1].Size + int64(len(want)); l.TotalBytes != n {
		t.Errorf("%d bytes, want %d", l.TotalBytes, n)
	}
	if _, err := parseIndex(l.Index); err != nil {
		t.Error(err)
	}
}

func TestPlanLayoutRefuses(t *testing.T) {
	huge := []int{math.MaxInt / 4}
	for _, c := range []struct {
		specs []Spec
		max   int64
		says  string
	}{
		{nil, 0, "without tensors"},
		{[]Spec{{"a", F32, nil}}, -1, "-1"},
		{[]Spec{{"", F32, nil}}, 0, `""`},
		{[]Spec{{"__metadata__", F32, nil}}, 0, "__metadata__"},
		{[]Spec{{"a\xff", F32, nil}}, 0, "UTF-8"},
		{[]Spec{{"a", 0, nil}}, 0, "DType(0)"},
		{[]Spec{{"a", i64, nil}}, 0, "I64"},
		{[]Spec{{"a", F32, []int{-1}}}, 0, "negative"},
		{[]Spec{{"a", F32, []int{math.MaxInt, 2}}}, 0, "overflow"},
		{[]Spec{{"a", F32, make([]int, 65)}}, 0, "65 dimensions"},
		{[]Spec{{"a", F32, nil}, {"a", F16, nil}}, 0, "twice"},
		{[]Spec{{"a", F32, huge}, {"b", F32, huge}}, 0, "overflow"},
		{[]Spec{{strings.Repeat("x", maxHeader), F32, nil}}, 0, "header"},
	} {
		_, err := PlanLayout(c.specs, c.max)
		wantText(t, err, c.says)
	}
}

// Whatever is planned must satisfy the reader's own checks and the library, with every element aligned.
func TestPlanLayoutIsReadable(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 200 {
		var specs []Spec
		for i := range 1 + rng.IntN(12) {
			s := Spec{Name: fmt.Sprintf("t\"%d\\\n\u2028", i), DType: []DType{F32, F16, BF16}[rng.IntN(3)]}
			for range rng.IntN(4) {
				s.Shape = append(s.Shape, rng.IntN(5))
			}
			specs = append(specs, s)
		}
		l, err := PlanLayout(specs, int64(rng.IntN(200)))
		if err != nil {
			t.Fatal(err)
		}
		var seen []string
		for _, s := range l.Shards {
			file := append(slices.Clone(s.Header), make([]byte, s.Size-int64(len(s.Header)))...)
			entries, start, err := readHeader(memory(file), s.Size)
			if err != nil {
				t.Fatal(err)
			}
			if start%8 != 0 || start != int64(len(s.Header)) {
				t.Fatalf("data begins at %d", start)
			}
			if _, err := safetensors.Deserialize(file); err != nil {
				t.Fatal(err)
			}
			for i, e := range entries {
				p := s.Tensors[i]
				spec := specs[slices.IndexFunc(specs, func(s Spec) bool { return s.Name == e.name })]
				if e.name != p.Name || e.dtype != spec.DType || !slices.Equal(e.shape, spec.Shape) || start+e.begin != p.Offset || e.end-e.begin != p.Size {
					t.Fatalf("planned %+v of %+v, read %+v", p, spec, e)
				}
				if p.Offset%int64(p.DType.Size()) != 0 {
					t.Fatalf("%+v is not aligned", p)
				}
				seen = append(seen, e.name)
			}
		}
		slices.Sort(seen)
		if len(slices.Compact(seen)) != len(specs) {
			t.Fatalf("planned %d tensors, laid out %d", len(specs), len(seen))
		}
	}
}
