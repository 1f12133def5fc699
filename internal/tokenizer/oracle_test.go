package tokenizer

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"testing"
)

// oracle is a running testdata/oracle.py: the real engine, for tests by hand. They run when
// TOKENIZER_ORACLE names a Python that has the package tokenizers.
type oracle struct {
	t   testing.TB
	in  io.Writer
	out *bufio.Reader
}

type oracleResult struct {
	IDs     []int
	Special []int
	Decoded string
	Error   string
}

func startOracle(t testing.TB) *oracle {
	python := os.Getenv("TOKENIZER_ORACLE")
	if python == "" {
		t.Skip("TOKENIZER_ORACLE names no Python with the package tokenizers")
	}
	cmd := exec.Command(python, "testdata/oracle.py")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return &oracle{t, in, bufio.NewReaderSize(out, 1<<20)}
}

// ask sends a request and reads the answer into it; it returns the engine's error.
func (o *oracle) ask(request map[string]any, results any) string {
	o.t.Helper()
	line, err := json.Marshal(request)
	if err != nil {
		o.t.Fatal(err)
	}
	if _, err := o.in.Write(append(line, '\n')); err != nil {
		o.t.Fatal(err)
	}
	line, err = o.out.ReadBytes('\n')
	if err != nil {
		o.t.Fatal("the oracle ended: ", err)
	}
	answer := struct {
		Error   string
		Results any
	}{Results: results}
	if err := json.Unmarshal(line, &answer); err != nil {
		o.t.Fatal(err)
	}
	return answer.Error
}

func (o *oracle) load(path string) {
	o.t.Helper()
	if err := o.ask(map[string]any{"load": path}, nil); err != "" {
		o.t.Fatal(err)
	}
}

func (o *oracle) encode(texts []string) []oracleResult {
	o.t.Helper()
	var results []oracleResult
	if err := o.ask(map[string]any{"encode": texts}, &results); err != "" {
		o.t.Fatal(err)
	}
	return results
}

// split is nil if the engine refuses the pattern.
func (o *oracle) split(pattern string, texts []string) (pieces [][]string, refused string) {
	o.t.Helper()
	refused = o.ask(map[string]any{"split": pattern, "texts": texts}, &pieces)
	return pieces, refused
}
