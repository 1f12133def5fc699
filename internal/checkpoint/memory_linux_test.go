package checkpoint

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
)

// status returns a figure of /proc/self/status, in bytes.
func status(t *testing.T, key string) int64 {
	t.Helper()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kb int64
		if rest, ok := strings.CutPrefix(lines.Text(), key+":"); ok {
			fmt.Sscan(rest, &kb)
			return kb << 10
		}
	}
	t.Skip("no " + key + " here")
	return 0
}

// Reading maps pages, which count as resident; Release must give them back, and what streams must not gather them.
func TestResidentMemory(t *testing.T) {
	const n = 64 << 20
	header := fmt.Sprintf(`{"w":{"dtype":"BF16","shape":[%d],"data_offsets":[0,%d]}}`, n/2, n)
	dir := folder(t, map[string]string{"config.json": "{}"})
	if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), rawFile(header, n), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w, _ := s.Get("w")
	const slack = 8 << 20
	base := status(t, "RssFile")

	dst, err := w.Float32(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := status(t, "RssFile") - base; got < n-slack {
		t.Fatalf("reading %d bytes maps %d: this test measures nothing here", n, got)
	}
	w.Release()
	if got := status(t, "RssFile") - base; got > slack {
		t.Errorf("%d bytes stay mapped after Release", got)
	}
	if again, err := w.Float32(dst); err != nil || again[1] != dst[1] {
		t.Fatal("reading again:", err)
	}
	w.Release()

	var peak int64
	chunks := 0
	err = w.stream(func(int64, []byte) error {
		if chunks++; chunks%16 == 0 {
			peak = max(peak, status(t, "RssFile")-base)
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
	layout, err := PlanLayout([]Spec{{"w", F32, []int{n / 2}}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	writer, err := Create(out, layout, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Abort(false)
	dst = nil
	debug.FreeOSMemory()
	base, anon := status(t, "RssFile"), status(t, "RssAnon")
	if err := writer.CopyFrom("w", w); err != nil {
		t.Fatal(err)
	}
	if got := status(t, "RssFile") - base; got > slack {
		t.Errorf("copying leaves %d bytes mapped", got)
	}
	if got := status(t, "RssAnon") - anon; got > slack {
		t.Errorf("copying takes %d bytes of memory", got)
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
