package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	configFile = "config.json"
	// maxConfig and maxIndex bound the JSON files that are read whole. The longest real index known has some 10 MB.
	maxConfig = 16 << 20
	maxIndex  = maxHeader
)

const pickleHint = "save the model as safetensors first (in transformers: from_pretrained, then save_pretrained)"

// foreignSuffixes are the endings of weight files in other formats.
var foreignSuffixes = []string{".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".npz"}

// Source is an open checkpoint. It is safe for concurrent use, except for Close.
type Source struct {
	dir     string
	files   []string // base names of the safetensors files, sorted
	index   string   // base name of the index, "" if there is none
	sizes   map[string]int64
	config  []byte
	tensors map[string]*Tensor
	names   []string
	data    []fileData
}

// Open opens a checkpoint: a folder with config.json and safetensors files, the folder's model.safetensors.index.json,
// or one safetensors file with config.json beside it. It reads headers only. Every header and the index are checked to
// describe exactly one set of tensors, in files that hold exactly their bytes. The error is an [*Error] of Kind
// BadSource or Unsupported.
func Open(path string) (*Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, &Error{Kind: BadSource, File: path, Err: cause(err), Hint: "expected a model folder, its " + indexFile + ", or a .safetensors file"}
	}
	s := &Source{dir: filepath.Clean(path), sizes: make(map[string]int64), tensors: make(map[string]*Tensor)}
	if !info.IsDir() {
		s.dir = filepath.Dir(path)
	}
	if err := s.open(path, info.IsDir()); err != nil {
		s.Close() // of a mapping that was never handed out; err is what matters
		return nil, err
	}
	return s, nil
}

func (s *Source) open(path string, isDir bool) error {
	var err error
	both := false // an index and model.safetensors, which it must then name
	base := filepath.Base(path)
	switch {
	case isDir:
		both, err = s.chooseFiles()
	case strings.HasSuffix(base, indexSuffix):
		s.index = base
	case strings.HasSuffix(base, weightsSuffix):
		if _, i, n, ok := shardNumber(base); ok && n > 1 {
			return &Error{Kind: BadSource, File: path, Got: fmt.Sprintf("shard %d of %d", i, n), Want: "a whole checkpoint", Hint: "name its folder instead"}
		}
		s.files = []string{base}
	case isForeign(base) || strings.HasSuffix(base, ".index.json"):
		return &Error{Kind: Unsupported, File: path, Got: "no safetensors file", Want: "weights in the safetensors format", Hint: pickleHint}
	default:
		return &Error{Kind: BadSource, File: path, Got: "no weights file", Want: "a model folder, its " + indexFile + ", or a .safetensors file"}
	}
	if err != nil {
		return err
	}
	if s.config, err = s.readSmall(configFile, maxConfig); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return badSource(filepath.Join(s.dir, configFile), "", "no such file", "the model's configuration beside its weights")
		}
		return err
	}
	s.sizes[configFile] = int64(len(s.config))
	var shardOf map[string]string
	if s.index != "" {
		text, err := s.readSmall(s.index, maxIndex)
		if err != nil {
			return err
		}
		s.sizes[s.index] = int64(len(text))
		if shardOf, err = parseIndex(text); err != nil {
			return inFile(filepath.Join(s.dir, s.index), err)
		}
		s.files = slices.Compact(slices.Sorted(maps.Values(shardOf)))
		if both && !slices.Equal(s.files, []string{weightsFile}) {
			return &Error{Kind: BadSource, File: s.dir, Got: "both " + weightsFile + " and " + indexFile + ", which names other files",
				Want: "one of them", Hint: "name the one to convert instead of the folder"}
		}
		for _, name := range s.files {
			if err := checkInside(s.dir, name); err != nil {
				return err
			}
		}
	}
	for _, name := range s.files {
		if err := s.openShard(name, shardOf); err != nil {
			return inFile(filepath.Join(s.dir, name), err)
		}
	}
	for _, tensor := range slices.Sorted(maps.Keys(shardOf)) {
		if s.tensors[tensor] == nil {
			return badSource(filepath.Join(s.dir, shardOf[tensor]), tensor, "no such tensor", "the tensor that "+s.index+" places here")
		}
	}
	s.names = slices.Sorted(maps.Keys(s.tensors))
	return nil
}

// chooseFiles sets the index or the files of a folder. both says that there are an index and model.safetensors: mlx-lm writes an
// index of that one file too.
func (s *Source) chooseFiles() (both bool, err error) {
	listing, err := os.ReadDir(s.dir)
	if err != nil {
		return false, &Error{Kind: BadSource, File: s.dir, Err: cause(err)}
	}
	var weights, foreign []string
	hasIndex := false
	for _, f := range listing {
		name := f.Name()
		switch {
		case name == indexFile:
			hasIndex = true
		case strings.HasSuffix(name, weightsSuffix):
			weights = append(weights, name)
		case isForeign(name):
			foreign = append(foreign, name)
		}
	}
	switch {
	case hasIndex:
		s.index = indexFile
		return slices.Contains(weights, weightsFile), nil
	case len(weights) == 1 && !isPart(weights[0]):
		s.files = weights
	case len(weights) > 0:
		s.files = weights
		return false, checkShardSet(s.dir, weights)
	case len(foreign) > 0:
		return false, &Error{Kind: Unsupported, File: s.dir, Got: "no safetensors file, but " + clip(strings.Join(foreign, ", ")), Want: "weights in the safetensors format", Hint: pickleHint}
	default:
		return false, badSource(s.dir, "", "no safetensors file", "a model folder with config.json and *.safetensors")
	}
	return false, nil
}

// isPart reports whether the name is that of one shard of several.
func isPart(name string) bool {
	_, _, n, ok := shardNumber(name)
	return ok && n > 1
}

func isForeign(name string) bool {
	return slices.Contains(foreignSuffixes, strings.ToLower(filepath.Ext(name)))
}

// openShard maps one file, checks its header and takes in its tensors; shardOf is the index, nil if there is none.
func (s *Source) openShard(name string, shardOf map[string]string) error {
	path := filepath.Join(s.dir, name)
	f, size, err := openRegular(path)
	if err != nil {
		return err
	}
	s.sizes[name] = size
	if size < prefixSize {
		f.Close()
		_, err := headerLength(nil, size)
		return err
	}
	data, err := openData(f, size)
	if err != nil {
		return err
	}
	s.data = append(s.data, data)
	entries, dataStart, err := readHeader(data, size)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if shardOf != nil && shardOf[e.name] != name {
			got := "a tensor that " + s.index + " does not name"
			if other, ok := shardOf[e.name]; ok {
				got = "a tensor that " + s.index + " places in " + clip(other)
			}
			return badSource("", e.name, got, "an index of every tensor in its shard")
		}
		if other := s.tensors[e.name]; other != nil {
			return badSource("", e.name, "a tensor that is also in "+filepath.Base(other.File), "every tensor in one shard")
		}
		s.tensors[e.name] = &Tensor{
			Name: e.name, DType: e.dtype, Shape: e.shape, File: path,
			data: data, off: dataStart + e.begin, size: e.end - e.begin,
		}
	}
	return nil
}

// readHeader returns the tensors of an open file and the offset at which their data begins.
func readHeader(data fileData, size int64) (entries []entry, dataStart int64, err error) {
	err = guardFaults(func() error {
		prefix, err := data.view(0, prefixSize, new([]byte))
		if err != nil {
			return err
		}
		n, err := headerLength(prefix, size)
		if err != nil {
			return err
		}
		header, err := data.view(prefixSize, n, new([]byte))
		if err != nil {
			return err
		}
		dataStart = prefixSize + n
		entries, err = parseHeader(header, size-dataStart)
		data.drop(0, dataStart)
		return err
	})
	return entries, dataStart, err
}

// openRegular opens a file for reading. Anything but a regular file is refused before it is opened, which could block.
func openRegular(path string) (*os.File, int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, &Error{Kind: BadSource, File: path, Err: cause(err)}
	}
	if !info.Mode().IsRegular() {
		return nil, 0, badSource(path, "", "no regular file", "a file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, &Error{Kind: BadSource, File: path, Err: cause(err)}
	}
	if info, err = f.Stat(); err != nil {
		f.Close()
		return nil, 0, &Error{Kind: BadSource, File: path, Err: cause(err)}
	}
	return f, info.Size(), nil
}

// readSmall reads a file of the folder whole, if it has at most limit bytes.
func (s *Source) readSmall(name string, limit int64) ([]byte, error) {
	path := filepath.Join(s.dir, name)
	f, size, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, &Error{Kind: BadSource, File: path, Err: cause(err)}
	}
	if int64(len(text)) > limit {
		return nil, badSource(path, "", fmt.Sprintf("%d bytes", size), fmt.Sprintf("at most %d", limit))
	}
	return text, nil
}

// ReadFile reads a file of the checkpoint's folder whole, if it has at most limit bytes and is no link to somewhere else. A
// file that is not there is an error that errors.Is finds to be fs.ErrNotExist.
func (s *Source) ReadFile(name string, limit int64) ([]byte, error) {
	if _, err := os.Lstat(filepath.Join(s.dir, name)); err == nil {
		if err := s.CheckInside(name); err != nil {
			return nil, err
		}
	}
	return s.readSmall(name, limit)
}

// cause takes the path off a file system error, which the message names already.
func cause(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// Dir returns the folder of the checkpoint.
func (s *Source) Dir() string { return s.dir }

// Files returns the names of the safetensors files in use, relative to Dir, sorted.
func (s *Source) Files() []string { return slices.Clone(s.files) }

// Names returns the names of all tensors, sorted.
func (s *Source) Names() []string { return slices.Clone(s.names) }

// Config returns the bytes of config.json.
func (s *Source) Config() []byte { return slices.Clone(s.config) }

// Get returns the named tensor, of whatever dtype it is.
func (s *Source) Get(name string) (*Tensor, bool) {
	t, ok := s.tensors[name]
	return t, ok
}

// Want returns the named tensor if it is there, is F32, F16 or BF16, and has the given shape; no shape at all means any.
func (s *Source) Want(name string, shape ...int) (*Tensor, error) {
	t, ok := s.tensors[name]
	if !ok {
		return nil, badSource(s.dir, name, fmt.Sprintf("no such tensor among %d", len(s.names)), "")
	}
	if len(shape) > 0 && !slices.Equal(t.Shape, shape) {
		return nil, t.errorf(BadSource, "shape "+formatShape(t.Shape), formatShape(shape))
	}
	if err := t.wantFloat(); err != nil {
		return nil, err
	}
	return t, nil
}

// Close unmaps the files. No tensor may be used afterwards, nor bytes of one.
func (s *Source) Close() error {
	var errs []error
	for _, d := range s.data {
		errs = append(errs, d.close())
	}
	s.data = nil
	return errors.Join(errs...)
}
