package checkpoint

import (
	"bytes"
	"encoding/json"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nlpodyssey/safetensors"
)

// keysOf lists the keys of a JSON object as they are written, duplicates included, and those of the objects under inner.
func keysOf(t *testing.T, text []byte, inner string) (outer, inside []string) {
	dec := json.NewDecoder(bytes.NewReader(text))
	next := func() json.Token {
		tok, err := dec.Token()
		if err != nil {
			t.Fatalf("accepted what is not JSON: %v", err)
		}
		return tok
	}
	var value func(depth int, under string)
	value = func(depth int, under string) {
		switch next() {
		case json.Delim('{'):
			for dec.More() {
				key := next().(string)
				switch {
				case depth == 0:
					outer = append(outer, key)
				case depth == 1 && under == inner:
					inside = append(inside, key)
				}
				value(depth+1, key)
			}
			next()
		case json.Delim('['):
			for dec.More() {
				value(depth+1, "")
			}
			next()
		}
	}
	value(0, "")
	return outer, inside
}

// FuzzHeader feeds whole files to the reader. What it accepts must satisfy, by other means than its own, the rules of the
// format: the tensors cover every byte of data once, each as long as its shape says, no key of the header lost.
func FuzzHeader(f *testing.F) {
	for _, c := range hostileHeaders {
		if len(c.header) < 1000 {
			f.Add(rawFile(c.header, c.data))
		}
	}
	for _, c := range lawfulHeaders {
		f.Add(rawFile(c.header, c.data))
	}
	f.Add([]byte{})
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255, '{', '}'})
	f.Fuzz(func(t *testing.T, file []byte) {
		data := memory(file)
		var entries []entry
		var start int64
		n, err := headerLength(file, int64(len(file)))
		if err == nil {
			entries, start, err = readHeader(data, int64(len(file)))
		}
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x00\x1b") {
				t.Errorf("error %q is not one line", err)
			}
			return
		}
		header := file[prefixSize : prefixSize+n]
		if start != prefixSize+n {
			t.Fatalf("data begins at %d", start)
		}
		covered := make([]int, len(file[start:]))
		names := make(map[string]bool)
		known := true
		for _, e := range entries {
			if e.begin < 0 || e.end < e.begin || e.end > int64(len(covered)) {
				t.Fatalf("%q: offsets %d to %d of %d", e.name, e.begin, e.end, len(covered))
			}
			for i := e.begin; i < e.end; i++ {
				covered[i]++
			}
			bits := big.NewInt(int64(dtypes[e.dtype].bits))
			for _, d := range e.shape {
				bits.Mul(bits, big.NewInt(int64(d)))
			}
			if bits.Cmp(big.NewInt(8*(e.end-e.begin))) != 0 {
				t.Fatalf("%q: %v of shape %v in %d bytes", e.name, e.dtype, e.shape, e.end-e.begin)
			}
			names[e.name] = true
			if _, err := safetensors.ParseDType(e.dtype.String()); err != nil {
				known = false
			}
		}
		for i, n := range covered {
			if n != 1 {
				t.Fatalf("byte %d of the data belongs to %d tensors", i, n)
			}
		}
		keys, _ := keysOf(t, header, "")
		keys = slices.DeleteFunc(keys, func(k string) bool { return k == "__metadata__" })
		if len(keys) != len(names) || len(names) != len(entries) {
			t.Fatalf("%d keys, %d tensors, %d names", len(keys), len(entries), len(names))
		}
		if known {
			if _, err := safetensors.Deserialize(file); err != nil {
				t.Fatalf("accepted what the library refuses: %v", err)
			}
		}
	})
}

// FuzzIndex checks that no index that is accepted names a file outside its folder or loses a key.
func FuzzIndex(f *testing.F) {
	for _, c := range hostileIndexes {
		f.Add([]byte(c.text))
	}
	f.Add([]byte(`{"metadata":{"total_size":1},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"x.safetensors"},"other":[[{"weight_map":{}}]]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		shardOf, err := parseIndex(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x00\x1b") {
				t.Errorf("error %q is not one line", err)
			}
			return
		}
		for tensor, shard := range shardOf {
			if strings.ContainsAny(shard, "/\\:\x00\n") || filepath.Base(shard) != shard || !strings.HasSuffix(shard, ".safetensors") {
				t.Fatalf("%q: shard %q", tensor, shard)
			}
		}
		if _, keys := keysOf(t, text, "weight_map"); len(keys) != len(shardOf) {
			t.Fatalf("%d keys in weight_map, %d tensors", len(keys), len(shardOf))
		}
	})
}

// memory is fileData over a slice.
type memory []byte

func (m memory) view(off, n int64, _ *[]byte) ([]byte, error) { return m[off : off+n], nil }
func (memory) drop(int64, int64)                              {}
func (memory) close() error                                   { return nil }
