package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mlaconvert/mlaconvert/internal/testmodel"
	"github.com/mlaconvert/mlaconvert/internal/ui"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mlaconvert": func() {
		plain := newProgress
		newProgress = func(w io.Writer, quiet bool) progress { return &signaller{progress: plain(w, quiet)} }
		os.Exit(Main())
	}})
}

// signaller sends the process itself a signal when a phase has got so far: MLACONVERT_TEST_SIGNAL=KILL:2:converting means
// two layers converted, KILL:2 two units of any phase, KILL:some:writing the first units of writing.
type signaller struct {
	progress
	phase string
}

func (s *signaller) Phase(name string, total int64, unit ui.Unit) {
	s.phase = name
	s.progress.Phase(name, total, unit)
}

func (s *signaller) Done(n int64) {
	s.progress.Done(n)
	name, at, _ := strings.Cut(os.Getenv("MLACONVERT_TEST_SIGNAL"), ":")
	at, phase, ok := strings.Cut(at, ":")
	sig, known := map[string]syscall.Signal{"KILL": syscall.SIGKILL, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM}[name]
	if !known || at != "some" && at != strconv.FormatInt(n, 10) || ok && phase != s.phase {
		return
	}
	arrived := make(chan os.Signal, 1)
	signal.Notify(arrived, sig)
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(sig)
	}
	if err != nil {
		panic(err)
	}
	<-arrived                         // never, if it kills
	time.Sleep(50 * time.Millisecond) // for the command's context, which is told at the same time
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"mla": runWithCode, "model": makeModel, "mlamodel": makeMLAModel, "truncate": truncate, "only": only, "same": same, "count": count,
		},
		Setup: func(env *testscript.Env) error {
			root, err := filepath.Abs("..")
			env.Setenv("REPO", root)
			return err
		},
	})
}

// runWithCode is `mla CODE ARGS...`: run mlaconvert and require its exit code.
func runWithCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: mla CODE ARGS...")
	}
	err := ts.Exec("mlaconvert", args[1:]...)
	code := "0"
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		code = strconv.Itoa(exit.ExitCode())
	case errors.As(err, &exit):
		code = "signal"
	case err != nil:
		ts.Fatalf("mlaconvert: %v", err)
	}
	if code != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}

// makeModel is `model DIR [OPTION...]`: write a random checkpoint. Options: layers=N, dtype=D, seed=N, shards=N and tied;
// then, applied in order, drop=TENSOR, extra=TENSOR, nan=TENSOR, big=TENSOR, type=TENSOR:DTYPE, shape=TENSOR:N,N
// and config=KEY:JSON.
func makeModel(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: model DIR [OPTION...]")
	}
	shape, shards := testmodel.Tiny, 1
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		ts.Check(err)
		return n
	}
	for _, option := range args[1:] {
		switch key, value, _ := strings.Cut(option, "="); key {
		case "layers":
			shape.Layers = number(value)
		case "dtype":
			shape.DType = value
		case "seed":
			shape.Seed = uint64(number(value))
		case "shards":
			shards = number(value)
		case "tied":
			shape.Tied = true
		}
	}
	m := testmodel.New(shape)
	spoil(ts, m, args[1:])
	ts.Check(m.Write(ts.MkAbs(args[0]), shards))
}

// makeMLAModel is `mlamodel DIR [OPTION...]`: write a random converted checkpoint without biases, with a tokenizer. Options are
// those of model that change tensors or the configuration.
func makeMLAModel(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: mlamodel DIR [OPTION...]")
	}
	m := testmodel.NewMLA(testmodel.TinyMLA, "BF16", 1)
	spoil(ts, m, args[1:])
	dir := ts.MkAbs(args[0])
	ts.Check(m.Write(dir, 1))
	ts.Check(os.WriteFile(filepath.Join(dir, "tokenizer.json"), testmodel.ByteTokenizer(54), 0o644))
}

// spoil applies the options of model that change tensors or the configuration.
func spoil(ts *testscript.TestScript, m *testmodel.Model, options []string) {
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		ts.Check(err)
		return n
	}
	for _, option := range options {
		key, value, _ := strings.Cut(option, "=")
		name, what, _ := strings.Cut(value, ":")
		switch key {
		case "layers", "dtype", "seed", "shards", "tied":
		case "drop":
			m.Drop(name)
		case "extra":
			m.Tensors = append(m.Tensors, testmodel.Tensor{Name: name, DType: "F32", Shape: []int{2}, Data: make([]byte, 8)})
		case "nan":
			copy(m.Get(name).Data[2:], []byte{0xc0, 0x7f})
		case "big":
			copy(m.Get(name).Data, testmodel.Encode("BF16", []float32{1e6}))
		case "type":
			t := m.Get(name)
			if strings.HasPrefix(what, "F8") {
				t.Data = t.Data[:len(t.Data)/2]
			}
			t.DType = what
		case "shape":
			m.Get(name).Shape = nil
			for n := range strings.SplitSeq(what, ",") {
				m.Get(name).Shape = append(m.Get(name).Shape, number(n))
			}
		case "config":
			var v any
			ts.Check(json.Unmarshal([]byte(what), &v))
			m.Config[name] = v
		default:
			ts.Fatalf("unknown option %s", option)
		}
	}
}

// truncate is `truncate FILE N`: cut N bytes off the end.
func truncate(ts *testscript.TestScript, neg bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), info.Size()-n))
}

// only is `only DIR NAME...`: the folder holds just these.
func only(ts *testscript.TestScript, neg bool, args []string) {
	listing, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	var got []string
	for _, f := range listing {
		if f.Name() != ".tmp" { // testscript's own
			got = append(got, f.Name())
		}
	}
	want := slices.Sorted(slices.Values(args[1:]))
	if slices.Equal(got, want) == neg {
		ts.Fatalf("%s holds %q, want %q", args[0], got, want)
	}
}

// same is `same A B`: two folders hold the same files.
func same(ts *testscript.TestScript, neg bool, args []string) {
	read := func(dir string) map[string]string {
		out := make(map[string]string)
		root := ts.MkAbs(dir)
		ts.Check(filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			out[strings.TrimPrefix(path, root)] = string(b)
			return err
		}))
		return out
	}
	a, b := read(args[0]), read(args[1])
	var differ []string
	for name := range a {
		if a[name] != b[name] {
			differ = append(differ, name)
		}
	}
	if equal := len(differ) == 0 && len(a) == len(b) && len(a) > 0; equal == neg {
		ts.Fatalf("%s and %s: %d and %d files, differing in %v", args[0], args[1], len(a), len(b), differ)
	}
}

// count is `count stdout|stderr N TEXT`: the last command printed so many lines with the text in them.
func count(ts *testscript.TestScript, neg bool, args []string) {
	n := 0
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		if strings.Contains(line, args[2]) {
			n++
		}
	}
	if (fmt.Sprint(n) == args[1]) == neg {
		ts.Fatalf("%d lines with %q, want %s", n, args[2], args[1])
	}
}
