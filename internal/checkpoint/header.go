package checkpoint

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sort"

	"github.com/nlpodyssey/safetensors"
)

const (
	// prefixSize is the length of the little-endian header length with which a safetensors file begins.
	prefixSize = 8
	// maxHeader is the longest header accepted, the limit of the format's reference implementation.
	maxHeader = 100_000_000
	// maxLibraryHeader is the longest header given to the library, which needs some thirty times its size in memory.
	maxLibraryHeader = 16 << 20
	// maxRank bounds the dimensions of a tensor, as NumPy and PyTorch do.
	maxRank = 64
)

// entry is what a header says of one tensor. Offsets count from the end of the header.
type entry struct {
	name       string
	dtype      DType
	shape      []int
	begin, end int64
}

// headerLength reads the length of the header from the first bytes of a file of the given size.
func headerLength(prefix []byte, fileSize int64) (int64, error) {
	if fileSize < prefixSize || len(prefix) < prefixSize {
		return 0, badSource("", "", fmt.Sprintf("%d bytes", fileSize), "a safetensors file, which begins with the 8-byte length of its header")
	}
	n := binary.LittleEndian.Uint64(prefix)
	if n > maxHeader {
		return 0, badSource("", "", fmt.Sprintf("a header length of %d bytes", n), fmt.Sprintf("at most %d", maxHeader))
	}
	if int64(n) > fileSize-prefixSize {
		return 0, badSource("", "", fmt.Sprintf("a header length of %d bytes in a file of %d", n, fileSize), "a header inside the file")
	}
	return int64(n), nil
}

// parseHeader decodes the JSON header of a file with dataSize bytes of tensor data, and returns the tensors in the order
// of their data. It refuses everything that is not exactly one reading of the file: see checkLayout and strictJSON.
func parseHeader(header []byte, dataSize int64) ([]entry, error) {
	if len(header) == 0 || header[0] != '{' {
		return nil, badSource("", "", "a header that does not begin with {", "a JSON object")
	}
	j, err := newStrictJSON(header)
	if err != nil {
		return nil, err
	}
	var entries []entry
	err = j.object("header", func(name string) error {
		if name == metadataKey {
			return parseMetadata(j)
		}
		e, err := parseEntry(j, name)
		entries = append(entries, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	sort.SliceStable(entries, func(a, b int) bool {
		x, y := &entries[a], &entries[b]
		return x.begin < y.begin || x.begin == y.begin && x.end < y.end
	})
	if err := checkLayout(entries, dataSize); err != nil {
		return nil, err
	}
	return entries, checkAgainstLibrary(header, entries)
}

// metadataKey is the one key of a header that is no tensor: free text, from string to string.
const metadataKey = "__metadata__"

func parseMetadata(j *strictJSON) error {
	return j.object(metadataKey, func(key string) error {
		_, err := j.text(metadataKey + "." + key)
		return err
	})
}

func parseEntry(j *strictJSON, name string) (entry, error) {
	e := entry{name: name}
	var hasDType, hasShape, hasOffsets bool
	err := j.object(name, func(key string) error {
		switch key {
		case "dtype":
			hasDType = true
			s, err := j.text(name)
			if err != nil {
				return err
			}
			d, ok := headerDTypes[s]
			if !ok {
				return &Error{Kind: Unsupported, Tensor: name, Got: fmt.Sprintf("unknown dtype %q", clip(s)), Want: "F32, F16 or BF16"}
			}
			e.dtype = d
		case "shape":
			hasShape = true
			dims, err := j.naturals(name, maxRank)
			if err != nil {
				return err
			}
			e.shape = make([]int, len(dims))
			for i, d := range dims {
				if d > math.MaxInt {
					return badSource("", name, fmt.Sprintf("a dimension of %d", d), "one that fits this machine's integers")
				}
				e.shape[i] = int(d)
			}
		case "data_offsets":
			hasOffsets = true
			o, err := j.naturals(name, 2)
			if err != nil {
				return err
			}
			if len(o) != 2 {
				return badSource("", name, fmt.Sprintf("%d data_offsets", len(o)), "2")
			}
			e.begin, e.end = o[0], o[1]
		default:
			return badSource("", name, fmt.Sprintf("the key %q", clip(key)), "dtype, shape and data_offsets only")
		}
		return nil
	})
	if err == nil && !(hasDType && hasShape && hasOffsets) {
		err = badSource("", name, "a tensor without dtype, shape or data_offsets", "all three")
	}
	return e, err
}

// checkLayout checks that the tensors, sorted by their offsets, tile the data exactly, with neither holes nor overlaps,
// and that each has the bytes that its shape and dtype need.
func checkLayout(entries []entry, dataSize int64) error {
	var at int64
	for i := range entries {
		e := &entries[i]
		offsets := fmt.Sprintf("data_offsets [%d, %d]", e.begin, e.end)
		switch {
		case e.end < e.begin:
			return badSource("", e.name, offsets, "the end not before the beginning")
		case e.end > dataSize:
			return badSource("", e.name, offsets, fmt.Sprintf("offsets inside the %d bytes of data (is the file cut short?)", dataSize))
		case e.begin < at:
			return badSource("", e.name, offsets+fmt.Sprintf(" that overlap tensor %q", clip(entries[i-1].name)), fmt.Sprintf("data from offset %d", at))
		case e.begin > at:
			return badSource("", e.name, offsets+fmt.Sprintf(" after a gap of %d bytes", e.begin-at), fmt.Sprintf("data from offset %d", at))
		}
		at = e.end
		n, err := shapeBytes(e.dtype, e.shape)
		if err != nil {
			return badSource("", e.name, err.Error(), "")
		}
		if n != e.end-e.begin {
			return badSource("", e.name, fmt.Sprintf("%d bytes", e.end-e.begin), fmt.Sprintf("%d for %v of shape %s", n, e.dtype, formatShape(e.shape)))
		}
	}
	if at != dataSize {
		return badSource("", "", fmt.Sprintf("%d bytes of data", dataSize), fmt.Sprintf("%d, where the last tensor ends", at))
	}
	return nil
}

// shapeBytes returns the bytes of a tensor. A shape whose non-zero dimensions overflow is an error even if another
// dimension is zero, so that no later product of dimensions can overflow either.
func shapeBytes(d DType, shape []int) (int64, error) {
	elements, empty := uint64(1), false
	overflow := func() error {
		return fmt.Errorf("shape %s of %v, which overflows", formatShape(shape), d)
	}
	for _, n := range shape {
		if n < 0 {
			return 0, fmt.Errorf("shape %s with a negative dimension", formatShape(shape))
		}
		if n == 0 {
			empty = true
			continue
		}
		hi, lo := bits.Mul64(elements, uint64(n))
		if hi != 0 {
			return 0, overflow()
		}
		elements = lo
	}
	hi, inBits := bits.Mul64(elements, uint64(dtypes[d].bits))
	if hi != 0 || inBits/8 > math.MaxInt {
		return 0, overflow()
	}
	if empty {
		return 0, nil
	}
	if inBits%8 != 0 {
		return 0, fmt.Errorf("shape %s of %v, which is no whole number of bytes", formatShape(shape), d)
	}
	return int64(inBits / 8), nil
}

// checkAgainstLibrary decodes the header a second time with the safetensors library and compares. It is passed over for
// the types that the library does not know, where it would refuse the file, and for headers of absurd length.
func checkAgainstLibrary(header []byte, entries []entry) error {
	if len(header) > maxLibraryHeader {
		return nil
	}
	for i := range entries {
		if _, err := safetensors.ParseDType(entries[i].dtype.String()); err != nil {
			return nil
		}
	}
	var m safetensors.Metadata
	if err := json.Unmarshal(header, &m); err != nil {
		return &Error{Kind: BadSource, Got: "a header that the safetensors library refuses", Err: err}
	}
	tensors := m.Tensors()
	if len(tensors) != len(entries) {
		return badSource("", "", fmt.Sprintf("%d tensors by the safetensors library", len(tensors)), fmt.Sprintf("%d", len(entries)))
	}
	for i := range entries {
		e := &entries[i]
		t := tensors[e.name]
		if t == nil || t.DType.String() != e.dtype.String() || t.DataOffsets != [2]uint64{uint64(e.begin), uint64(e.end)} ||
			!slices.EqualFunc(t.Shape, e.shape, func(a uint64, b int) bool { return a == uint64(b) }) {
			return badSource("", e.name, "another reading of the header by the safetensors library", fmt.Sprintf("%v %s", e.dtype, formatShape(e.shape)))
		}
	}
	return nil
}
