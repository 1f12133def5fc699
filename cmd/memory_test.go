package cmd

import (
	"encoding/json"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/testmodel"
)

// BenchmarkPeakMemory converts checkpoints of 2 and of 8 layers of one shape, each in a process of its own, and fails if
// the peak resident size grows by more than 20 % or is not within 15 % of the plan's prediction.
func BenchmarkPeakMemory(b *testing.B) {
	shape := testmodel.Shape{Hidden: 1024, Intermediate: 2816, Heads: 16, KVHeads: 8, HeadDim: 64, Vocab: 4096, DType: "BF16", Seed: 1}
	dir := b.TempDir()
	for _, layers := range []int{2, 8} {
		shape.Layers = layers
		if err := testmodel.New(shape).Write(filepath.Join(dir, fmt.Sprint(layers)), 1); err != nil {
			b.Fatal(err)
		}
	}
	for _, jobs := range []int{1, 2} {
		b.Run(fmt.Sprintf("jobs=%d", jobs), func(b *testing.B) {
			for b.Loop() {
				peak := make(map[int]int64)
				var predicted int64
				for _, layers := range []int{2, 8} {
					args := []string{"convert", filepath.Join(dir, fmt.Sprint(layers)), "--out", filepath.Join(dir, "out"), "--force", "--rank", "512", "--calibration", "none", "--jobs", fmt.Sprint(jobs), "--json"}
					var plan planReport
					decodeOutput(b, &plan, append(args, "--dry-run"))
					predicted = plan.PeakMemoryBytes
					var report convertReport
					decodeOutput(b, &report, args)
					peak[layers] = report.PeakRSSBytes
				}
				b.ReportMetric(float64(peak[2])/1e6, "MB/2-layers")
				b.ReportMetric(float64(peak[8])/1e6, "MB/8-layers")
				b.ReportMetric(float64(predicted)/1e6, "MB/predicted")
				if float64(peak[8]) > 1.2*float64(peak[2]) {
					b.Errorf("peak of 8 layers %d bytes, of 2 layers %d", peak[8], peak[2])
				}
				if off := float64(predicted)/float64(peak[8]) - 1; math.Abs(off) > 0.15 {
					b.Errorf("peak %d bytes, predicted %d: %+.0f %%", peak[8], predicted, 100*off)
				}
			}
		})
	}
}

// decodeOutput runs mlaconvert in a process of its own and parses its standard output.
func decodeOutput(b *testing.B, v any, args []string) {
	b.Helper()
	out, err := exec.Command("mlaconvert", args...).Output()
	if err != nil {
		b.Fatal(err)
	}
	if err := json.Unmarshal(out, v); err != nil {
		b.Fatal(err)
	}
}
