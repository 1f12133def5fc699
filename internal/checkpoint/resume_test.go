package checkpoint

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// interrupt does the given units of a scenario and leaves the rest for later.
func (s *scenario) interrupt(t *testing.T, out string, units ...int) {
	t.Helper()
	w, err := Create(out, s.layout, WriterOptions{Identity: "one"})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range units {
		for _, name := range s.units[i] {
			if err := w.WriteTensor(name, s.values[name]); err != nil {
				t.Fatal(err)
			}
		}
		unit := fmt.Sprint("unit ", i)
		if err := w.MarkDone(unit, []byte("payload of "+unit+"\x00")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WriteFile("stray.json", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(true); err != nil {
		t.Fatal(err)
	}
}

// resume finishes a scenario and returns the units that it did anew.
func (s *scenario) resume(t *testing.T, out string) []string {
	t.Helper()
	w, err := Create(out, s.layout, WriterOptions{Identity: "one", Resume: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort(true)
	did, err := s.run(w, []int{2, 1, 0})
	if err != nil {
		t.Fatal(err)
	}
	if got := listing(t, filepath.Dir(out)); !slices.Equal(got, []string{filepath.Base(out)}) {
		t.Fatalf("left behind: %v", got)
	}
	return did
}

func TestResume(t *testing.T) {
	s := newScenario(t)
	want := s.finished(t)
	for _, c := range []struct {
		name   string
		units  []int
		damage func(t *testing.T, out string)
		did    []string
	}{
		{"nothing done", nil, nil, []string{"unit 2", "unit 1", "unit 0"}},
		{"two units", []int{0, 2}, nil, []string{"unit 1"}},
		{"all units", []int{1, 0, 2}, nil, nil},
		{"a byte changed", []int{0, 1}, func(t *testing.T, out string) {
			file, place, _ := s.layout.Lookup("l0.k")
			flipByte(t, filepath.Join(out+".partial", file), place.Offset+place.Size-1)
		}, []string{"unit 2", "unit 0"}},
		{"a header torn", []int{0, 1}, func(t *testing.T, out string) {
			flipByte(t, filepath.Join(out+".partial", s.layout.Shards[0].File), 20)
		}, []string{"unit 2"}},
		{"a shard cut short", []int{0, 1}, func(t *testing.T, out string) {
			// The third shard holds a tensor of unit 1 and nothing else.
			if err := os.Truncate(filepath.Join(out+".partial", s.layout.Shards[2].File), 300); err != nil {
				t.Fatal(err)
			}
		}, []string{"unit 2", "unit 1"}},
		{"a shard grown", []int{0, 1, 2}, func(t *testing.T, out string) {
			if err := os.Truncate(filepath.Join(out+".partial", s.layout.Shards[2].File), 30000); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"a shard gone", []int{0, 1}, func(t *testing.T, out string) {
			if err := os.Remove(filepath.Join(out+".partial", s.layout.Shards[2].File)); err != nil {
				t.Fatal(err)
			}
		}, []string{"unit 2", "unit 1"}},
		{"the folder gone", []int{0, 1, 2}, func(t *testing.T, out string) {
			if err := os.RemoveAll(out + ".partial"); err != nil {
				t.Fatal(err)
			}
		}, []string{"unit 2", "unit 1", "unit 0"}},
		{"strays", []int{0}, func(t *testing.T, out string) {
			if err := os.MkdirAll(filepath.Join(out+".partial", "sub", "sub"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, []string{"unit 2", "unit 1"}},
		{"the journal emptied, the folder too", []int{0}, func(t *testing.T, out string) {
			if err := os.RemoveAll(out + ".partial"); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(out+".partial.journal", 0); err != nil {
				t.Fatal(err)
			}
		}, []string{"unit 2", "unit 1", "unit 0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			s.interrupt(t, out, c.units...)
			if c.damage != nil {
				c.damage(t, out)
			}
			if did := s.resume(t, out); !slices.Equal(did, c.did) {
				t.Errorf("did %v, want %v", did, c.did)
			}
			if !maps.Equal(readTree(t, out), want) {
				t.Error("other files than without an interruption")
			}
		})
	}
}

// A unit may name tensors of the process before.
func TestMarkRecovered(t *testing.T) {
	s := newScenario(t)
	out := filepath.Join(t.TempDir(), "out")
	s.interrupt(t, out, 0)
	for round := range 2 {
		w, err := Create(out, s.layout, WriterOptions{Identity: "one", Resume: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := w.Done("again"); ok != (round == 1) {
			t.Errorf("round %d: unit done: %v", round, ok)
		}
		if round == 0 {
			if err := w.MarkDone("again", nil, s.units[0]...); err != nil {
				t.Fatal(err)
			}
			wantText(t, w.MarkDone("other", nil, s.units[1]...), "not written")
		}
		if err := w.Abort(true); err != nil {
			t.Fatal(err)
		}
	}
}

// What an unfinished output has on disk already is not asked for again.
func TestSpaceNeeded(t *testing.T) {
	layout, err := PlanLayout([]Spec{{"a", F32, []int{1 << 20}}, {"b", F32, []int{1 << 20}}}, 1<<22)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	fresh := &Writer{paths: pathsFor(out), layout: layout, opts: WriterOptions{Extra: 1000}}
	if got, want := fresh.spaceNeeded(), layout.TotalBytes+1000; got != want {
		t.Errorf("%d bytes needed, want %d", got, want)
	}
	w, err := Create(out, layout, fresh.opts)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort(false)
	if err := w.WriteTensor("a", make([]float32, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.MarkDone("a", nil); err != nil {
		t.Fatal(err)
	}
	if got, most := fresh.spaceNeeded(), layout.TotalBytes+1000-1<<22; got > most || got < 0 {
		t.Errorf("%d bytes needed with one of two tensors on disk, want at most %d", got, most)
	}
}

// A Create that fails half way leaves what it found, and the lock to others.
func TestCreateFails(t *testing.T) {
	s := newScenario(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	defer func() { crashPoint = func(string) {} }()
	crashPoint = func(point string) {
		if point == "staging" {
			if err := os.Mkdir(filepath.Join(out+".partial", s.layout.Shards[1].File), 0o755); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := Create(out, s.layout, WriterOptions{Identity: "one"}); err == nil {
		t.Fatal("a folder in the place of a shard")
	}
	if got := listing(t, dir); len(got) != 0 {
		t.Fatalf("left behind: %v", got)
	}
	crashPoint = func(string) {}
	s.interrupt(t, out, 0)
	shard := filepath.Join(out+".partial", s.layout.Shards[2].File)
	if err := os.Remove(shard); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(shard, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(out, s.layout, WriterOptions{Identity: "one", Resume: true}); err == nil {
		t.Fatal("a folder in the place of a shard")
	}
	if err := os.Remove(shard); err != nil {
		t.Fatal(err)
	}
	if did := s.resume(t, out); !slices.Equal(did, []string{"unit 2", "unit 1"}) {
		t.Errorf("did %v", did)
	}
}

func flipByte(t *testing.T, path string, at int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 0x10
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A journal that ends anywhere must give the units whose lines are whole, and the rest must be done again.
func TestTornJournal(t *testing.T) {
	s := newScenario(t)
	want := s.finished(t)
	out := filepath.Join(t.TempDir(), "out")
	s.interrupt(t, out, inOrder...)
	journal, err := os.ReadFile(out + ".partial.journal")
	if err != nil {
		t.Fatal(err)
	}
	staged := readTree(t, out+".partial")
	for n := 0; n <= len(journal); n++ {
		if n%97 != 0 && n != len(journal) && n+1 < len(journal) && journal[n] != '\n' && (n == 0 || journal[n-1] != '\n') {
			continue // every cut around a line's end, and some others
		}
		out := filepath.Join(t.TempDir(), "out")
		if err := os.Mkdir(out+".partial", 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range staged {
			if err := os.WriteFile(filepath.Join(out+".partial", name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(out+".partial.journal", journal[:n], 0o644); err != nil {
			t.Fatal(err)
		}
		lines := 0
		for _, b := range journal[:n] {
			if b == '\n' {
				lines++
			}
		}
		if n == 0 { // no journal at all: the folder might be anybody's
			_, err := Create(out, s.layout, WriterOptions{Identity: "one", Resume: true})
			wantError(t, err, Exists, "out.partial", "in the way")
			continue
		}
		if did, whole := s.resume(t, out), max(0, lines-1); len(did) != 3-whole {
			t.Errorf("journal cut at %d, %d units whole: did %v", n, whole, did)
		}
		if !maps.Equal(readTree(t, out), want) {
			t.Fatalf("journal cut at %d: other files", n)
		}
	}
}

// What is written behind a torn line must be read again after a second interruption.
func TestTornJournalTwice(t *testing.T) {
	s := newScenario(t)
	out := filepath.Join(t.TempDir(), "out")
	s.interrupt(t, out, 0, 1)
	journal, err := os.ReadFile(out + ".partial.journal")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(out+".partial.journal", int64(len(journal)-10)); err != nil {
		t.Fatal(err)
	}
	w, err := Create(out, s.layout, WriterOptions{Identity: "one", Resume: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range s.units[2] {
		if err := w.WriteTensor(name, s.values[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.MarkDone("unit 2", []byte("payload of unit 2\x00")); err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(true); err != nil {
		t.Fatal(err)
	}
	if did := s.resume(t, out); !slices.Equal(did, []string{"unit 1"}) {
		t.Errorf("did %v, want unit 1 only", did)
	}
	if !maps.Equal(readTree(t, out), s.finished(t)) {
		t.Error("other files")
	}
}

// A journal with any byte changed must give a beginning of its units, unaltered.
func TestDamagedJournal(t *testing.T) {
	s := newScenario(t)
	out := filepath.Join(t.TempDir(), "out")
	s.interrupt(t, out, inOrder...)
	path := out + ".partial.journal"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	read := func() (journalHeader, []journalUnit) {
		j, err := openJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		defer j.close()
		header, units, _, err := j.read()
		if err != nil {
			t.Fatal(err)
		}
		return header, units
	}
	header, units := read()
	if len(units) != 3 || header.Identity != "one" {
		t.Fatalf("%+v, %d units", header, len(units))
	}
	for i := range text {
		damaged := slices.Clone(text)
		damaged[i] ^= 0x04
		if err := os.WriteFile(path, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		gotHeader, got := read()
		if gotHeader != header && (gotHeader != journalHeader{} || len(got) > 0) {
			t.Fatalf("byte %d changed: header %+v", i, gotHeader)
		}
		if len(got) >= 3 {
			// A change outside of what the sum covers, such as in the name of a key, cannot go unnoticed either.
			t.Fatalf("byte %d changed: still three units", i)
		}
		for k, u := range got {
			if u.Unit != units[k].Unit || string(u.Payload) != string(units[k].Payload) || !maps.Equal(u.Tensors, units[k].Tensors) {
				t.Fatalf("byte %d changed: unit %+v, was %+v", i, u, units[k])
			}
		}
	}
}

// An identity that follows later counts from then on: what is left before it is begun again, what is left after it goes on.
func TestPendingIdentity(t *testing.T) {
	s := newScenario(t)
	want := s.finished(t)
	for _, identified := range []bool{false, true} {
		t.Run(fmt.Sprint(identified), func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			w, err := Create(out, s.layout, WriterOptions{Pending: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range s.units[0] {
				if err := w.WriteTensor(name, s.values[name]); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.MarkDone("unit 0", nil); err == nil {
				t.Error("a unit was done without an identity")
			}
			if identified {
				for _, err := range []error{w.Identify("one"), w.MarkDone("unit 0", []byte("payload of unit 0\x00"))} {
					if err != nil {
						t.Fatal(err)
					}
				}
				if w.Identify("two") == nil {
					t.Error("two identities")
				}
			}
			if err := w.Abort(true); err != nil {
				t.Fatal(err)
			}
			wantUnits := []string{"unit 2", "unit 1", "unit 0"}
			if identified {
				wantUnits = wantUnits[:2]
				_, err := Create(out, s.layout, WriterOptions{Identity: "two", Resume: true})
				wantError(t, err, Exists, "another recipe")
			}
			if did := s.resume(t, out); !slices.Equal(did, wantUnits) {
				t.Errorf("did %q, want %q", did, wantUnits)
			}
			if got := readTree(t, out); !maps.Equal(got, want) {
				t.Error("another output")
			}
		})
	}
}
