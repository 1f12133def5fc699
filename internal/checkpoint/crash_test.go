package checkpoint

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// The environment of a child process that runs the scenario and kills itself, as by kill -9, at the n-th crash point.
const (
	crashOut   = "CHECKPOINT_TEST_CRASH_OUT"
	crashAt    = "CHECKPOINT_TEST_CRASH_AT"
	crashForce = "CHECKPOINT_TEST_CRASH_FORCE"
	crashFile  = "CHECKPOINT_TEST_CRASH_FILE"
)

func TestMain(m *testing.M) {
	if out := os.Getenv(crashOut); out != "" {
		os.Exit(crashChild(os.Getenv(crashAt), func() error { return runScenario(out, os.Getenv(crashForce) != "") }))
	}
	if path := os.Getenv(crashFile); path != "" {
		os.Exit(crashChild(os.Getenv(crashAt), func() error { return writeOutFile(path, true) }))
	}
	os.Exit(m.Run())
}

// crashChild does work, and dies at its crash point of the given number.
func crashChild(at string, work func() error) int {
	n, err := strconv.Atoi(at)
	if err != nil {
		return 3
	}
	crashPoint = func(point string) {
		if n--; n >= 0 {
			return
		}
		fmt.Print(point)
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Kill()
		}
		if err != nil {
			os.Exit(4)
		}
		select {}
	}
	if err := work(); err != nil {
		fmt.Print(err)
		return 5
	}
	return 0
}

func runScenario(out string, force bool) error {
	s := newScenario(childTB{})
	w, err := Create(out, s.layout, WriterOptions{Identity: "one", Resume: true, Force: force})
	if err == nil {
		_, err = s.run(w, inOrder)
	}
	return err
}

// childTB fails the child process for a test helper.
type childTB struct{ testing.TB }

func (childTB) Fatal(args ...any)            { panic(fmt.Sprint(args...)) }
func (childTB) Fatalf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }

// crash runs a child and returns the point at which it died; finished says that it did not.
func crash(t *testing.T, out string, at int, force bool) (point string, finished bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), crashOut+"="+out, crashAt+"="+strconv.Itoa(at))
	if force {
		cmd.Env = append(cmd.Env, crashForce+"=1")
	}
	text, err := cmd.Output()
	if err == nil {
		return "", true
	}
	if code := cmd.ProcessState.ExitCode(); code > 0 && code != 1 { // 1 is what Kill gives on Windows
		t.Fatalf("child at point %d: exit code %d: %s", at, code, text)
	}
	return string(text), false
}

// However a run dies, it leaves no part of an output, and the next run makes the same files as one that did not die.
func TestCrashAnywhere(t *testing.T) {
	s := newScenario(t)
	want := s.finished(t)
	points := make(map[string]int)
	for at := 0; ; at++ {
		if at > 100 {
			t.Fatal("the child never finishes")
		}
		dir := t.TempDir()
		out := filepath.Join(dir, "out")
		point, finished := crash(t, out, at, false)
		if finished {
			break
		}
		points[point]++
		if _, err := os.Stat(out); err == nil { // it died behind the rename
			if point != "renamed" || !maps.Equal(readTree(t, out), want) {
				t.Fatalf("killed at %s (%d): a part of an output", point, at)
			}
			continue
		} else if point == "renamed" {
			t.Fatal("no output behind the rename")
		}
		marked := points["marked"]
		did := s.resume(t, out)
		if point != "journal" && point != "staging" && point != "shards" && len(did) != 3-marked {
			t.Errorf("killed at %s (%d): %d units were done, then did %v", point, at, marked, did)
		}
		if !maps.Equal(readTree(t, out), want) {
			t.Fatalf("killed at %s (%d): other files after the resume", point, at)
		}
	}
	for _, point := range []string{"journal", "staging", "shards", "chunk", "kept", "synced", "marked", "complete", "renamed"} {
		if points[point] == 0 {
			t.Errorf("never killed at %s", point)
		}
	}
	if points["marked"] != 3 || points["kept"] != 3 || points["chunk"] != 7 { // one of the 8 tensors is empty
		t.Errorf("points %v", points)
	}
}

// Runs that die again and again, each a little later than the last, still come to the same end.
func TestCrashRepeatedly(t *testing.T) {
	s := newScenario(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	for at := 3; ; at++ { // past the points of Create, so that each run gets somewhere
		if at > 100 {
			t.Fatal("the child never finishes")
		}
		point, finished := crash(t, out, at, false)
		if finished || point == "renamed" {
			break
		}
	}
	if !maps.Equal(readTree(t, out), s.finished(t)) {
		t.Error("other files")
	}
}

// With an old output to be replaced, the old or the new one is whole at any moment, if once under another name.
func TestCrashReplacing(t *testing.T) {
	s := newScenario(t)
	want := s.finished(t)
	old := map[string]string{"config.json": "old", "model.safetensors": "old"}
	points := make(map[string]int)
	for at := 0; ; at++ {
		if at > 100 {
			t.Fatal("the child never finishes")
		}
		dir := t.TempDir()
		out := filepath.Join(dir, "out")
		if err := os.Mkdir(out, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range old {
			if err := os.WriteFile(filepath.Join(out, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		point, finished := crash(t, out, at, true)
		points[point]++
		where, expect := out, old
		switch point {
		case "aside":
			where = out + ".partial.old"
		case "renamed", "removed", "":
			expect = want
		}
		if !maps.Equal(readTree(t, where), expect) {
			t.Fatalf("killed at %s: neither the old nor the new output is whole", point)
		}
		if finished {
			break
		}
		if point == "aside" { // a run that may not replace it finds the old output again
			_, err := Create(out, s.layout, WriterOptions{Identity: "one", Resume: true})
			wantError(t, err, Exists, "out", "exists")
			if !maps.Equal(readTree(t, out), old) {
				t.Fatal("the old output did not come back")
			}
		}
		w, err := Create(out, s.layout, WriterOptions{Identity: "one", Resume: true, Force: true})
		if err != nil {
			t.Fatalf("after %s: %v", point, err)
		}
		if _, err := s.run(w, inOrder); err != nil {
			t.Fatalf("after %s: %v", point, err)
		}
		if !maps.Equal(readTree(t, out), want) {
			t.Fatalf("after %s: other files", point)
		}
		if got := listing(t, dir); !slices.Equal(got, []string{"out"}) {
			t.Fatalf("after %s: left behind %v", point, got)
		}
	}
	for _, point := range []string{"complete", "aside", "renamed", "removed"} {
		if points[point] == 0 {
			t.Errorf("never killed at %s", point)
		}
	}
}
