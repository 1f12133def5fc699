package checkpoint

import (
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// keep keeps a text and fails the test if it cannot.
func keep(t *testing.T, w *Writer, name, text string) {
	t.Helper()
	if err := w.Keep(name, func(to io.Writer) error { _, err := io.WriteString(to, text); return err }); err != nil {
		t.Fatal(err)
	}
}

// wantKept checks what is kept under a name; nothing may be, if the text is empty.
func wantKept(t *testing.T, w *Writer, name, text string) {
	t.Helper()
	var got []byte
	ok, err := w.Kept(name, func(r io.Reader) (err error) { got, err = io.ReadAll(r); return err })
	if err != nil || ok != (text != "") || string(got) != text {
		t.Errorf("%s: kept %.20q, %v, %v; want %.20q", name, got, ok, err, text)
	}
}

// What is kept is there for the next run, whole or not at all, and in no output.
func TestKeep(t *testing.T) {
	s := newScenario(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	w, err := Create(out, s.layout, WriterOptions{Identity: "one"})
	if err != nil {
		t.Fatal(err)
	}
	if w.Keeps() {
		t.Error("something is kept from the start")
	}
	long := strings.Repeat("long ", 1<<20)
	keep(t, w, "a", "first")
	keep(t, w, "a", long)
	keep(t, w, "b", "damaged")
	keep(t, w, "c", "cut short")
	keep(t, w, "d", "dropped")
	if err := errors.Join(w.Drop("d"), w.Drop("never there")); err != nil {
		t.Fatal(err)
	}
	wantKept(t, w, "a", long)
	wantKept(t, w, "d", "")

	broken := errors.New("broken off")
	if err := w.Keep("a", func(to io.Writer) error { _, err := io.WriteString(to, "half"); return errors.Join(err, broken) }); !errors.Is(err, broken) {
		t.Errorf("%v, want the error of the one who writes", err)
	}
	for _, name := range []string{"", ".", "..", "sub/name"} {
		if err := w.Keep(name, func(io.Writer) error { return nil }); err == nil {
			t.Errorf("kept under %q", name)
		}
	}
	if err := w.Abort(true); err != nil {
		t.Fatal(err)
	}
	flipByte(t, filepath.Join(out+".partial", keptFolder, "b"), 2)
	if err := os.Truncate(filepath.Join(out+".partial", keptFolder, "c"), 3); err != nil {
		t.Fatal(err)
	}

	if w, err = Create(out, s.layout, WriterOptions{Identity: "one", Resume: true}); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a": long, "b": "", "c": "", "d": ""} {
		wantKept(t, w, name, text)
	}
	if !w.Keeps() {
		t.Error("nothing is kept after the resumption")
	}
	if ok, err := w.Kept("a", func(io.Reader) error { return broken }); ok || !errors.Is(err, broken) {
		t.Errorf("%v, %v: want the error of the one who reads", ok, err)
	}
	if _, err := s.run(w, inOrder); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(readTree(t, out), s.finished(t)) {
		t.Error("other files than of a run that keeps nothing")
	}
	if err := w.Keep("a", func(io.Writer) error { return nil }); !errors.Is(err, errClosed) {
		t.Errorf("kept behind the end: %v", err)
	}
}

// Another run than one that resumes finds nothing.
func TestKeepIsForResumption(t *testing.T) {
	s := newScenario(t)
	out := filepath.Join(t.TempDir(), "out")
	for _, o := range []WriterOptions{{Identity: "one"}, {Identity: "one", Force: true}, {Identity: "two", Force: true}} {
		w, err := Create(out, s.layout, o)
		if err != nil {
			t.Fatal(err)
		}
		wantKept(t, w, "a", "")
		keep(t, w, "a", "text")
		if err := w.Abort(true); err != nil {
			t.Fatal(err)
		}
	}
}

// Nothing is kept in space that the output's own files need.
func TestKeepLeavesSpace(t *testing.T) {
	s := newScenario(t)
	w, err := Create(filepath.Join(t.TempDir(), "out"), s.layout, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort(false)
	keep(t, w, "a", "before")
	w.opts.Extra = 1 << 62
	if _, known := freeSpace(filepath.Dir(w.out)); !known {
		t.Skip("the free space is not known here")
	}
	wantError(t, w.Keep("a", func(io.Writer) error { return nil }), NoSpace, "out")
	wantKept(t, w, "a", "before")
}
