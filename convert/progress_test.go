package convert

import (
	"slices"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/calibrate"
)

// noteWatcher keeps the notes.
type noteWatcher struct {
	watcher
	notes []string
}

func (w *noteWatcher) Note(text string) { w.notes = append(w.notes, text) }

// TestDescentNotes: behind each descent stands the held-out loss before it and the least of its looks, which trials of a rate
// are not.
func TestDescentNotes(t *testing.T) {
	var w noteWatcher
	tell := stepProgress(&w)
	look := func(name string, done, total int, figure float64) {
		tell(calibrate.Step{Name: "held-out " + name, Done: done, Total: total, Figure: figure})
	}
	look("polish", 0, 60, 0.5)
	look("polish", calibrate.TrialSteps, 60, 0.1)
	look("polish", 20, 60, 0.4)
	look("polish", 40, 60, 0.25)
	look("polish", 60, 60, 0.3)
	look("distill", 0, 30, 0.08)
	look("distill", 20, 30, 0.09)
	look("distill", 30, 30, 0.1)
	look("distill long", 20, 20, 0.07) // resumed
	want := []string{"held-out drift (squared): 0.5 -> 0.25", "held-out divergence: 0.08 -> 0.08", "held-out divergence in long texts: 0.07 behind it"}
	if !slices.Equal(w.notes, want) {
		t.Errorf("got %q, want %q", w.notes, want)
	}
}
