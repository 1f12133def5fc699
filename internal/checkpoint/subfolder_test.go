package checkpoint

import (
	"os"
	"path/filepath"
	"testing"
)

// TestCopyInto: files of a folder come into the output, also over a resumption, which writes them again.
func TestCopyInto(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "rag.jinja")
	if err := os.WriteFile(src, []byte("{{ x }}"), 0o644); err != nil {
		t.Fatal(err)
	}
	layout, err := PlanLayout([]Spec{{"f", F32, []int{1}}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	for _, again := range []bool{false, true} {
		w, err := Create(out, layout, WriterOptions{Resume: again})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range [][2]string{{"..", src}, {"a/b", src}, {"", src}, {"templates", filepath.Join(dir, "x.safetensors")}} {
			wantText(t, w.CopyInto(c[0], c[1]), "name")
		}
		wantError(t, w.CopyInto("templates", filepath.Join(dir, "missing")), BadSource, "missing")
		if err := w.CopyInto("templates", src); err != nil {
			t.Fatal(err)
		}
		if !again {
			if err := w.Abort(true); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := w.WriteTensor("f", []float32{1}); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(out, "templates", "rag.jinja")); err != nil || string(b) != "{{ x }}" {
		t.Errorf("got %q, %v", b, err)
	}
}
