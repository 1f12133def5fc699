package checkpoint

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// resident returns how much of the mapping of a file is resident, in bytes.
func resident(t *testing.T, path string) int64 {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for inside := false; lines.Scan(); {
		if strings.HasSuffix(lines.Text(), path) {
			inside = true
		}
		if rest, ok := strings.CutPrefix(lines.Text(), "Rss:"); ok && inside {
			var kb int64
			if _, err := fmt.Sscan(rest, &kb); err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Skip("the mapping is not listed here")
	return 0
}

// Reading maps pages, which count as resident; Release must give them back, and what streams must not gather them.
func TestResidentMemory(t *testing.T) {
	const n = 48 << 20
	const pad = 40 << 10 // puts the chunks across the blocks of pages that Linux maps at one fault
	header := fmt.Sprintf(`{"pad":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]},"w":{"dtype":"BF16","shape":[%d],"data_offsets":[%d,%d]}}`, pad, pad, n/2, pad, pad+n)
	dir := folder(t, map[string]string{"config.json": "{}", "model.safetensors": string(rawFile(header, 0))})
	if err := os.Truncate(filepath.Join(dir, "model.safetensors"), int64(prefixSize+len(header)+pad+n)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w, _ := s.Get("w")
	const slack = 8 << 20
	path, err := filepath.EvalSymlinks(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if firstNonFinite(BF16, w.Bytes()) >= 0 {
		t.Fatal("zeros are not finite")
	}
	if got := resident(t, path); got < n-slack {
		t.Skipf("reading %d bytes maps %d: nothing to measure here", n, got)
	}
	w.Release()
	if got := resident(t, path); got > slack {
		t.Errorf("%d bytes stay mapped after Release", got)
	}
	if firstNonFinite(BF16, w.Bytes()) >= 0 {
		t.Error("other values after Release")
	}
	w.Release()

	var peak int64
	chunks := 0
	err = w.stream(func(int64, []byte) error {
		if chunks++; chunks%16 == 0 {
			peak = max(peak, resident(t, path))
		}
		return nil
	})
	if err != nil || chunks != n/chunkBytes {
		t.Fatal(chunks, err)
	}
	if peak > slack {
		t.Errorf("streaming %d bytes maps %d at once", n, peak)
	}

	out := filepath.Join(t.TempDir(), "out")
	layout, err := PlanLayout([]Spec{{"w", BF16, []int{n / 2}}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	writer, err := Create(out, layout, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Abort(false)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := writer.CopyFrom("w", w); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := resident(t, path); got > slack {
		t.Errorf("copying leaves %d bytes mapped", got)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("copying allocates %d bytes", got)
	}
}

// A fault maps more than its page, across the ends of tensors; releasing one tensor after another must leave none of it.
func TestReleaseNeighbours(t *testing.T) {
	const size, count = 700 << 10, 80
	var parts []string
	for i := range count {
		parts = append(parts, fmt.Sprintf(`"t%03d":{"dtype":"BF16","shape":[%d],"data_offsets":[%d,%d]}`, i, size/2, i*size, (i+1)*size))
	}
	header := "{" + strings.Join(parts, ",") + "}"
	dir := folder(t, map[string]string{"config.json": "{}", "model.safetensors": string(rawFile(header, 0))})
	if err := os.Truncate(filepath.Join(dir, "model.safetensors"), int64(prefixSize+len(header)+count*size)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	path, err := filepath.EvalSymlinks(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range s.Names() {
		w, _ := s.Get(name)
		if firstNonFinite(BF16, w.Bytes()) >= 0 {
			t.Fatal("zeros are not finite")
		}
	}
	if got := resident(t, path); got < count*size/2 {
		t.Skipf("reading %d bytes maps %d: nothing to measure here", count*size, got)
	}
	for _, name := range s.Names() {
		w, _ := s.Get(name)
		w.Release()
	}
	if got := resident(t, path); got > 1<<20 {
		t.Errorf("%d bytes stay mapped after releasing every tensor", got)
	}
	for _, name := range s.Names() {
		w, _ := s.Get(name)
		if firstNonFinite(BF16, w.Bytes()) >= 0 {
			t.Fatal("other values after Release")
		}
		w.Release()
	}
	if got := resident(t, path); got > 1<<20 {
		t.Errorf("%d bytes stay mapped after reading and releasing one tensor after another", got)
	}
}

// A pipe in the place of a file must not block.
func TestOpenPipe(t *testing.T) {
	for _, name := range []string{"model.safetensors", "config.json"} {
		files := map[string]string{"model.safetensors": tensorFile("a"), "config.json": "{}"}
		delete(files, name)
		dir := folder(t, files)
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o644); err != nil {
			t.Skip(err)
		}
		_, err := Open(dir)
		wantError(t, err, BadSource, name, "no regular file")
	}
}
