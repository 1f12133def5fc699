package checkpoint

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

const outFileText = "the new content"

func wantFiles(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	listing, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range listing {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if wanted, ok := want[f.Name()]; !ok || wanted != string(text) {
			t.Errorf("%s holds %q, want %q", f.Name(), text, wanted)
		}
	}
	if len(listing) != len(want) {
		t.Errorf("%d files, want %d", len(listing), len(want))
	}
}

func writeOutFile(path string, force bool) error {
	o, err := CreateFile(path, int64(len(outFileText)), force, nil)
	if err != nil {
		return err
	}
	if _, err := o.Write([]byte(outFileText)); err != nil {
		return errors.Join(err, o.Abort())
	}
	return o.Commit(int64(len(outFileText)))
}

func wantKind(t *testing.T, err error, kind Kind) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Errorf("%v, want kind %s", err, kind)
	}
}

func TestOutputFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := writeOutFile(path, false); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, map[string]string{"f": outFileText})
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantKind(t, writeOutFile(path, false), Exists)
	wantFiles(t, dir, map[string]string{"f": "old"})

	// What a killed run left, longer than what comes, is written over; the old file stays until the new one is whole.
	if err := os.WriteFile(path+".partial", make([]byte, 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	o, err := CreateFile(path, 3, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = CreateFile(path, 3, true, nil)
	wantKind(t, err, Exists) // in use
	if _, err := o.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "old" {
		t.Errorf("%q, %v before Commit", text, err)
	}
	if err := o.Commit(3); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, map[string]string{"f": "new"})
}

func TestOutputFileAbort(t *testing.T) {
	dir := t.TempDir()
	o, err := CreateFile(filepath.Join(dir, "a", "b", "f"), 10, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Abort(); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, nil)
	for name, write := range map[string]int{"short": 9, "long": 11} {
		o, err := CreateFile(filepath.Join(dir, name), 10, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Write(make([]byte, write)); err != nil {
			t.Fatal(err)
		}
		if err := o.Commit(10); err == nil {
			t.Errorf("%s: committed %d bytes of 10", name, write)
		}
	}
	wantFiles(t, dir, nil)
}

// TestOutputFileAppears: what appeared at the place while the file was written is not replaced without force.
func TestOutputFileAppears(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, force := range []bool{false, true} {
		os.Remove(path)
		o, err := CreateFile(path, 3, force, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("theirs"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Write([]byte("new")); err != nil {
			t.Fatal(err)
		}
		err = o.Commit(3)
		if force {
			if err != nil {
				t.Error(err)
			}
			wantFiles(t, dir, map[string]string{"f": "new"})
			continue
		}
		wantKind(t, err, Exists)
		wantFiles(t, dir, map[string]string{"f": "theirs"})
	}
}

func TestOutputFileRefusals(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"folder", "g.partial"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	wantKind(t, writeOutFile(filepath.Join(dir, "folder"), true), Exists)
	wantKind(t, writeOutFile(filepath.Join(dir, "g"), true), Exists)
	source := filepath.Join(dir, "source")
	if err := os.WriteFile(source, []byte("weights"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := CreateFile(filepath.Join(dir, ".", "source"), 10, true, []string{source})
	wantKind(t, err, Exists)
	if text, err := os.ReadFile(source); err != nil || string(text) != "weights" {
		t.Errorf("%q, %v", text, err)
	}
	_, err = CreateFile(filepath.Join(dir, "new", "huge"), 1<<60, false, nil)
	wantKind(t, err, NoSpace)
	if left, err := exists(filepath.Join(dir, "new")); left || err != nil {
		t.Errorf("a folder is left: %v, %v", left, err)
	}
}

// TestOutputFileCrash kills the process at every point: the place holds the old content or the new, never part of it, and
// the next run succeeds.
func TestOutputFileCrash(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for at := 0; ; at++ {
		dir := t.TempDir()
		path := filepath.Join(dir, "f")
		if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), crashFile+"="+path, crashAt+"="+strconv.Itoa(at))
		out, err := cmd.Output()
		text, readErr := os.ReadFile(path)
		want := "old"
		if err == nil || string(out) == "renamed" {
			want = outFileText
		}
		if readErr != nil || string(text) != want {
			t.Errorf("killed at %q: %q, %v, want %q", out, text, readErr, want)
		}
		if err := writeOutFile(path, true); err != nil {
			t.Errorf("after a kill at %q: %v", out, err)
		}
		wantFiles(t, dir, map[string]string{"f": outFileText})
		if err == nil {
			break
		}
		seen[string(out)] = true
	}
	for _, point := range []string{"begun", "written", "synced", "renamed"} {
		if !seen[point] {
			t.Errorf("never killed at %s", point)
		}
	}
}
