package checkpoint

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
)

const (
	weightsSuffix = ".safetensors"
	indexSuffix   = ".safetensors.index.json"
	weightsFile   = "model.safetensors"
	indexFile     = "model.safetensors.index.json"
)

// parseIndex returns the weight_map of a model.safetensors.index.json: for every tensor the name of its shard.
func parseIndex(text []byte) (map[string]string, error) {
	j, err := newStrictJSON(text)
	if err != nil {
		return nil, err
	}
	shardOf := make(map[string]string)
	found := false
	err = j.object("index", func(key string) error {
		if key != "weight_map" {
			return j.skip()
		}
		found = true
		return j.object("weight_map", func(tensor string) error {
			shard, err := j.text(tensor)
			if err != nil {
				return err
			}
			if err := checkShardName(shard); err != nil {
				err.Tensor = tensor
				return err
			}
			shardOf[tensor] = shard
			return nil
		})
	})
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, badSource("", "", "an index without weight_map", "an object from tensor to file")
	case len(shardOf) == 0:
		return nil, badSource("", "", "an empty weight_map", "at least one tensor")
	}
	return shardOf, nil
}

// checkShardName accepts plain names of safetensors files: what an index names must lie in its own folder.
func checkShardName(name string) *Error {
	if strings.ContainsAny(name, `/\:`) || strings.ContainsFunc(name, unicode.IsControl) || !filepath.IsLocal(name) || name == "." {
		return badSource("", "", "the file name "+strconv.Quote(clip(name)), "the plain name of a file in the same folder")
	}
	if !strings.HasSuffix(name, weightsSuffix) {
		return &Error{Kind: Unsupported, Got: "the file " + strconv.Quote(clip(name)), Want: "safetensors files", Hint: pickleHint}
	}
	return nil
}

// checkInside refuses a shard named by an index that is a symbolic link to somewhere else. The links of a Hugging Face
// cache, from snapshots/REVISION to blobs, are let through.
func checkInside(dir, name string) error {
	path := filepath.Join(dir, name)
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return &Error{Kind: BadSource, File: path, Got: "a shard that cannot be found", Want: "every file that the index names", Err: cause(err)}
	}
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return &Error{Kind: BadSource, File: dir, Err: cause(err)}
	}
	allowed := []string{root}
	if snapshots := filepath.Dir(root); filepath.Base(snapshots) == "snapshots" {
		allowed = append(allowed, filepath.Join(filepath.Dir(snapshots), "blobs"))
	}
	for _, folder := range allowed {
		if rel, err := filepath.Rel(folder, target); err == nil && filepath.IsLocal(rel) {
			return nil
		}
	}
	return badSource(path, "", "a symbolic link out of its folder", "a file inside the folder of the index")
}

// shardNumber splits PREFIX-00001-of-00003.safetensors into its prefix, 1 and 3.
func shardNumber(name string) (prefix string, i, n int, ok bool) {
	stem, isWeights := strings.CutSuffix(name, weightsSuffix)
	rest, last, ok1 := cutLast(stem, "-of-")
	prefix, first, ok2 := cutLast(rest, "-")
	if !isWeights || !ok1 || !ok2 || len(first) < 5 || len(first) != len(last) {
		return "", 0, 0, false
	}
	a, err1 := strconv.ParseUint(first, 10, 31)
	b, err2 := strconv.ParseUint(last, 10, 31)
	if err1 != nil || err2 != nil || a < 1 || a > b {
		return "", 0, 0, false
	}
	return prefix, int(a), int(b), true
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// checkShardSet accepts several safetensors files without an index only if their names say that they are one whole set.
func checkShardSet(dir string, names []string) error {
	present := make(map[int]bool, len(names))
	var set string
	var total int
	for _, name := range names {
		prefix, i, n, ok := shardNumber(name)
		if !ok || total != 0 && (prefix != set || n != total) {
			return &Error{Kind: BadSource, File: dir, Got: fmt.Sprintf("%d safetensors files and no index (%s)", len(names), clip(strings.Join(names, ", "))),
				Want: indexFile + ", or files named model-0000i-of-0000n.safetensors", Hint: "name the one file to convert instead of its folder"}
		}
		set, total = prefix, n
		present[i] = true
	}
	for i := 1; i <= total; i++ {
		if !present[i] {
			return badSource(dir, "", fmt.Sprintf("%d of %d shards", len(names), total), fmt.Sprintf("%s-%05d-of-%05d.safetensors as well", set, i, total))
		}
	}
	return nil
}
