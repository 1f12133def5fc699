package ui

import (
	"strings"
	"sync"
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"1B": 1, "5GB": 5e9, "512MB": 512e6, "8GiB": 8 << 30, "1.5KB": 1500, "0.5KiB": 512, "2TB": 2e12, "7KiB": 7 << 10,
	} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("%s: got %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "5", "GB", "5 GB", "5gb", "-5GB", "5GBs", "5.GB", ".5GB", "1e3MB", "0GB", "0.1B", "5G", "999999999999TB", "٥GB", "5GB\n", "NaNGB"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("%q: got %d, want an error", s, got)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 KB", 9994: "9.99 KB", 9996: "10.0 KB", 99960: "100 KB", 999499: "999 KB", 999500: "1.00 MB",
		538e6: "538 MB", 5e9: "5.00 GB", 12345678901: "12.3 GB", 1 << 60: "1153 PB",
	} {
		if got := FormatSize(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

func TestExactSize(t *testing.T) {
	for n, want := range map[int64]string{5e9: "5GB", 1: "1B", 1500: "1500B", 2e6: "2MB", 1 << 30: "1073741824B", 7e15: "7000TB"} {
		got := ExactSize(n)
		if back, err := ParseSize(got); got != want || err != nil || back != n {
			t.Errorf("%d: got %s (%d, %v), want %s", n, got, back, err, want)
		}
	}
}

// TestLines: without a terminal there is one line for the phase and then at most one in every lineEvery, no control
// characters, and none at all when quiet.
func TestLines(t *testing.T) {
	var out strings.Builder
	p := NewProgress(&out, false)
	now := time.Unix(0, 0)
	p.now = func() time.Time { return now }
	p.Phase("hashing", 4e6, Bytes)
	p.Done(1e6)
	now = now.Add(lineEvery)
	p.Done(2e6)
	p.Done(2.2e6)
	now = now.Add(lineEvery)
	p.Done(2.3e6)
	p.Note("a note")
	p.Phase("converting", 3, "layers")
	now = now.Add(lineEvery)
	p.Done(2)
	p.End()
	want := "hashing: 4.00 MB\nhashing: 2.00 MB of 4.00 MB (50 %)\na note\nconverting: 3 layers\nconverting: 2 of 3 layers (66 %)\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}

	out.Reset()
	q := NewProgress(&out, true)
	q.Phase("hashing", 1, Bytes)
	q.Done(1)
	q.Note("x")
	q.End()
	if out.Len() > 0 {
		t.Errorf("quiet progress wrote %q", out.String())
	}
}

// TestBar: on a terminal a bar is drawn, notes stand on lines of their own, and nothing of the bar is left behind.
func TestBar(t *testing.T) {
	var out strings.Builder
	p := NewProgress(&out, false)
	p.bars = true
	p.Phase("converting", 100, "layers")
	var wg sync.WaitGroup
	for i := range int64(100) {
		wg.Go(func() { p.Done(100 - i) })
	}
	wg.Wait()
	p.Note("a note")
	p.End()
	if !strings.Contains(out.String(), "converting") || !strings.Contains(out.String(), "\ra note\n") {
		t.Errorf("got %q", out.String())
	}
	if rest := out.String()[strings.LastIndex(out.String(), "\n")+1:]; strings.TrimSpace(strings.ReplaceAll(rest, "\r", "")) != "" {
		t.Errorf("left on the line: %q", rest)
	}
	if strings.Contains(out.String(), "\x1b[3") {
		t.Error("colour codes in the bar")
	}
}
