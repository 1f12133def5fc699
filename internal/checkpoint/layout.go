package checkpoint

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Spec is a tensor to be written.
type Spec struct {
	Name  string
	DType DType
	Shape []int // row-major; empty for a scalar
}

// Placed is a tensor with its place in a shard.
type Placed struct {
	Spec
	Offset int64 // of the first byte in the file
	Size   int64 // bytes
}

// Shard is a safetensors file to be written: Header, then the tensors without holes.
type Shard struct {
	File    string // base name
	Header  []byte // the file up to its first tensor
	Tensors []Placed
	Size    int64 // bytes of the file
}

// Layout is the place of every tensor in every file of a checkpoint.
type Layout struct {
	Shards     []Shard
	Index      []byte // content of model.safetensors.index.json, nil for a single file
	TotalBytes int64  // of all files
	place      map[string]place
}

// place finds a tensor in Layout.Shards.
type place struct{ shard, tensor int }

// PlanLayout distributes tensors over files, as transformers does: in the order given, a new file when the next tensor
// would take the data of one over maxShard bytes (0 means no limit; a larger tensor gets a file of its own); one file
// is model.safetensors, several are model-0000i-of-0000n.safetensors with an index. Inside a file, wider types come first,
// because readers need elements to be aligned; tensors of one width keep their order. The layout depends on nothing else.
func PlanLayout(specs []Spec, maxShard int64) (*Layout, error) {
	if len(specs) == 0 {
		return nil, fmt.Errorf("a checkpoint without tensors")
	}
	if maxShard < 0 {
		return nil, fmt.Errorf("shards of at most %d bytes", maxShard)
	}
	if maxShard == 0 {
		maxShard = math.MaxInt64
	}
	var groups [][]Placed
	var dataBytes, elements, room int64
	seen := make(map[string]bool, len(specs))
	for _, spec := range specs {
		size, err := checkSpec(spec)
		if err != nil {
			return nil, err
		}
		if seen[spec.Name] {
			return nil, fmt.Errorf("tensor %s: planned twice", oneLine(spec.Name))
		}
		seen[spec.Name] = true
		if size > math.MaxInt64-dataBytes {
			return nil, fmt.Errorf("tensor %s: the checkpoint's size overflows", oneLine(spec.Name))
		}
		dataBytes += size
		elements += size / int64(spec.DType.Size())
		if len(groups) == 0 || size > room {
			groups = append(groups, nil)
			room = maxShard
		}
		room -= size
		g := &groups[len(groups)-1]
		spec.Shape = slices.Clone(spec.Shape)
		*g = append(*g, Placed{Spec: spec, Size: size})
	}
	l := &Layout{place: make(map[string]place, len(specs))}
	for i, tensors := range groups {
		name := weightsFile
		if len(groups) > 1 {
			name = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(groups))
		}
		shard, err := layShard(name, tensors)
		if err != nil {
			return nil, err
		}
		for j, t := range shard.Tensors {
			l.place[t.Name] = place{i, j}
		}
		l.Shards = append(l.Shards, shard)
		l.TotalBytes += shard.Size
	}
	if len(groups) > 1 {
		var err error
		if l.Index, err = indexText(l, dataBytes, elements); err != nil {
			return nil, err
		}
		l.TotalBytes += int64(len(l.Index))
	}
	return l, nil
}

// Lookup returns the file and the place of a tensor.
func (l *Layout) Lookup(name string) (file string, t Placed, ok bool) {
	p, ok := l.place[name]
	if !ok {
		return "", Placed{}, false
	}
	shard := &l.Shards[p.shard]
	return shard.File, shard.Tensors[p.tensor], true
}

// checkSpec returns the bytes of a tensor that can be written and read back.
func checkSpec(s Spec) (int64, error) {
	switch {
	case s.Name == "" || s.Name == metadataKey:
		return 0, fmt.Errorf("a tensor named %q", s.Name)
	case !utf8.ValidString(s.Name) || strings.ContainsRune(s.Name, utf8.RuneError):
		return 0, fmt.Errorf("tensor %q: a name that is not UTF-8", clip(s.Name))
	case !s.DType.IsFloat():
		return 0, fmt.Errorf("tensor %s: dtype %v, expected F32, F16 or BF16", oneLine(s.Name), s.DType)
	case len(s.Shape) > maxRank:
		return 0, fmt.Errorf("tensor %s: %d dimensions, expected at most %d", oneLine(s.Name), len(s.Shape), maxRank)
	}
	n, err := shapeBytes(s.DType, s.Shape)
	if err != nil {
		return 0, fmt.Errorf("tensor %s: %w", oneLine(s.Name), err)
	}
	return n, nil
}

// layShard orders the tensors of one file, writes its header and sets the offsets.
func layShard(name string, tensors []Placed) (Shard, error) {
	slices.SortStableFunc(tensors, func(a, b Placed) int { return b.DType.Size() - a.DType.Size() })
	var h bytes.Buffer
	h.Write(make([]byte, prefixSize))
	h.WriteString(`{"__metadata__":{"format":"pt"}`)
	var at int64
	for i := range tensors {
		t := &tensors[i]
		t.Offset = at
		at += t.Size
		h.WriteByte(',')
		h.Write(jsonString(t.Name))
		fmt.Fprintf(&h, `:{"dtype":"%v","shape":%s,"data_offsets":[%d,%d]}`, t.DType, strings.ReplaceAll(formatShape(t.Shape), " ", ""), t.Offset, at)
	}
	h.WriteByte('}')
	for h.Len()%8 != 0 { // the data begins at a multiple of 8
		h.WriteByte(' ')
	}
	if h.Len()-prefixSize > maxHeader {
		return Shard{}, fmt.Errorf("%s: a header of %d bytes, expected at most %d; use smaller shards", name, h.Len()-prefixSize, maxHeader)
	}
	if at > math.MaxInt64-int64(h.Len()) {
		return Shard{}, fmt.Errorf("%s: the file's size overflows", name)
	}
	header := h.Bytes()
	binary.LittleEndian.PutUint64(header, uint64(len(header)-prefixSize))
	for i := range tensors {
		tensors[i].Offset += int64(len(header))
	}
	return Shard{File: name, Header: header, Tensors: tensors, Size: int64(len(header)) + at}, nil
}

// indexText writes model.safetensors.index.json as transformers does: indented by two, keys sorted.
func indexText(l *Layout, dataBytes, elements int64) ([]byte, error) {
	var index struct {
		Metadata struct {
			TotalParameters int64 `json:"total_parameters"`
			TotalSize       int64 `json:"total_size"`
		} `json:"metadata"`
		WeightMap map[string]string `json:"weight_map"`
	}
	index.Metadata.TotalParameters = elements
	index.Metadata.TotalSize = dataBytes
	index.WeightMap = make(map[string]string, len(l.place))
	for name, p := range l.place {
		index.WeightMap[name] = l.Shards[p.shard].File
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(index); err != nil {
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	return b.Bytes(), nil
}

// jsonString quotes s, which is UTF-8, as JSON.
func jsonString(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic("checkpoint: a string that is no JSON: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
