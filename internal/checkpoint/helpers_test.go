package checkpoint

import (
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// rawFile builds a safetensors file from its parts, without the code under test.
func rawFile(header string, dataSize int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	for i := range dataSize {
		b = append(b, byte(i*7%120)) // finite in every dtype
	}
	return b
}

// folder writes files into a new folder. Its name holds nothing of the test's, so that an error that names the folder does
// not seem to say what the test looks for.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ck")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(files[name]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// wantError checks the kind of an error, that its one line holds all the given parts, and that it is one line.
func wantError(t *testing.T, err error, kind Kind, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one of kind %v with %q", kind, parts)
		return
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Errorf("%v: no *Error", err)
		return
	}
	if e.Kind != kind {
		t.Errorf("%v: kind %v, want %v", err, e.Kind, kind)
	}
	wantText(t, err, parts...)
}

// wantTensor checks the tensor or field that an error names.
func wantTensor(t *testing.T, err error, name string) {
	t.Helper()
	var e *Error
	if name != "" && errors.As(err, &e) && e.Tensor != name {
		t.Errorf("error %q names %q, want %q", err, e.Tensor, name)
	}
}

// wantText checks the text of an error of any type.
func wantText(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", parts)
		return
	}
	text := err.Error()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("error %q does not say %q", text, part)
		}
	}
	if strings.ContainsAny(text, "\n\r\x1b\x00") || len(text) > 2000 || strings.HasSuffix(text, ".") {
		t.Errorf("error %q is not one short line", text)
	}
}

// readTree returns the content of every file below dir.
func readTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	tree := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		tree[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// listing returns the names in a folder.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
