package checkpoint

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// A disk that fills up gives NoSpace wherever it does, and a failed journal or sync stops everything after it: what is on
// disk is unknown then. /dev/full plays the disk.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	s := newScenario(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	w, err := Create(out, s.layout, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	readme := filepath.Join(out+".partial", "README.md")
	if err := os.Symlink("/dev/full", readme); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.WriteFile("README.md", []byte("x")), NoSpace, "README.md")

	shard := w.files[0]
	w.files[0] = full
	wantError(t, w.WriteTensor("l0.q", s.values["l0.q"]), NoSpace, s.layout.Shards[0].File)
	w.files[0] = shard
	if err := w.WriteTensor("l0.q", s.values["l0.q"]); err != nil {
		t.Fatalf("when there is space again: %v", err)
	}

	file := w.journal.f
	w.journal.f = full
	err = w.MarkDone("unit", nil)
	wantError(t, err, NoSpace, "journal")
	w.journal.f = file
	if _, ok := w.Done("unit"); ok {
		t.Error("a unit that is not in the journal is done")
	}
	for _, got := range []error{w.WriteTensor("norm", s.values["norm"]), w.MarkDone("unit", nil), w.Commit()} {
		if !errors.Is(got, err) {
			t.Errorf("after a failed journal: %v", got)
		}
	}
	if err := w.Abort(true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(readme); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that could not be written is still there: %v", err)
	}
	w, err = Create(out, s.layout, WriterOptions{Resume: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.run(w, inOrder); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(readTree(t, out), s.finished(t)) || !slices.Equal(listing(t, dir), []string{"out"}) {
		t.Error("other files after the resume")
	}
}

// A sync that fails is not tried again: the kernel may have dropped what it could not write.
func TestFailedSync(t *testing.T) {
	s := newScenario(t)
	w, err := Create(filepath.Join(t.TempDir(), "out"), s.layout, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort(false)
	if err := w.WriteTensor("embed", s.values["embed"]); err != nil {
		t.Fatal(err)
	}
	r, pipe, err := os.Pipe() // cannot be synced
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer pipe.Close()
	shard := w.files[0]
	w.files[0] = pipe
	err = w.MarkDone("unit", nil)
	if !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("sync of a pipe: %v", err)
	}
	w.files[0] = shard
	if again := w.MarkDone("unit", nil); !errors.Is(again, err) {
		t.Errorf("after a failed sync: %v", again)
	}
}
