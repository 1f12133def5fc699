//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package checkpoint

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// A header that is as long as claimed but is a hole in the file must be refused without memory for it.
func TestSparseHeader(t *testing.T) {
	dir := folder(t, map[string]string{"config.json": "{}"})
	path := filepath.Join(dir, "model.safetensors")
	for _, begin := range []string{"", "{"} {
		if err := os.WriteFile(path, append(binary.LittleEndian.AppendUint64(nil, maxHeader), begin...), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, maxHeader+8); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Open(dir)
		runtime.ReadMemStats(&after)
		wantError(t, err, BadSource, "model.safetensors")
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%d bytes allocated to refuse a header of zeros", n)
		}
	}
}

// A file that is cut short while it is mapped must give an error, not kill the process.
func TestFileCutShort(t *testing.T) {
	const n = 1 << 20
	dir := folder(t, map[string]string{"config.json": "{}",
		"model.safetensors": string(rawFile(`{"w":{"dtype":"F16","shape":[1024,512],"data_offsets":[0,1048576]}}`, n))})
	path := filepath.Join(dir, "model.safetensors")
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w, _ := s.Get("w")
	if _, err := w.Float32(nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 5000); err != nil {
		t.Fatal(err)
	}
	_, err = w.Float32(nil)
	wantError(t, err, BadSource, path, "w", "cannot be read")
	_, err = w.Rows(1000, 1001, nil)
	wantError(t, err, BadSource, path, "w", "cannot be read")
	wantError(t, w.CheckFinite(), BadSource, path, "w", "cannot be read")
	_, err = s.Hashes(t.Context(), nil)
	wantError(t, err, BadSource, path, "5000 bytes")
}
