//go:build unix

package tokenizer

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// processorTime is what this process has used: unlike the time of day, it tells nothing of what else
// the machine does.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// TestLongWord encodes words of a quarter of a megabyte: what is quadratic in the length would take
// many minutes of processor time.
func TestLongWord(t *testing.T) {
	const size = 1 << 18
	for family, text := range map[string]string{
		"gpt2":    strings.Repeat("a", size),
		"smollm":  strings.Repeat(" ", size),
		"llama3":  strings.Repeat("theof", size/5),
		"llama2":  strings.Repeat("of the ", size/7),
		"mistral": strings.Repeat("漢", size/3),
		"qwen2":   "e" + strings.Repeat("\u0301", size/2),
	} {
		tok := load(t, family)
		start := processorTime(t)
		ids, err := tok.Encode(text, false)
		if err != nil {
			t.Fatal(err)
		}
		d := processorTime(t) - start
		t.Logf("%s: %d ids in %v", family, len(ids), d)
		if d > 10*time.Second {
			t.Errorf("%s took %v of processor time", family, d)
		}
	}
}
