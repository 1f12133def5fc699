package convert

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
)

// Action is what becomes of a source tensor.
type Action string

// The actions of a ledger.
const (
	Converted Action = "converted"
	Copied    Action = "copied"
	Dropped   Action = "dropped"
)

// Entry is one source tensor in the ledger.
type Entry struct {
	Tensor string `json:"tensor"`
	DType  string `json:"dtype"`
	Shape  []int  `json:"shape"`
	Bytes  int64  `json:"bytes"`
	Action Action `json:"action"`
	// Reason says why a tensor is dropped.
	Reason string `json:"reason,omitempty"`
	// Targets are the tensors of the output that come from it.
	Targets []string `json:"targets,omitempty"`
}

// unit is a part of the output that is written and journaled as a whole.
type unit struct {
	name  string
	layer int // -1 for what belongs to no layer
	specs []checkpoint.Spec
	// copies maps names of specs to the source tensors that they are copied from; the others are the layer's attention.
	copies map[string]*checkpoint.Tensor
}

func (u *unit) add(name string, d checkpoint.DType, shape ...int) {
	u.specs = append(u.specs, checkpoint.Spec{Name: name, DType: d, Shape: shape})
}

// names lists the tensors of the unit.
func (u *unit) names() []string {
	out := make([]string, len(u.specs))
	for i, s := range u.specs {
		out[i] = s.Name
	}
	return out
}

// ledger matches the tensors of a source against what its configuration says there must be.
type ledger struct {
	src     *checkpoint.Source
	model   *arch.Model
	entries map[string]*Entry
	failed  map[string]bool // tensors that have been complained about
	problemList
}

// take looks a tensor up and enters it; nil if it is missing or not as expected.
func (l *ledger) take(action Action, name string, shape ...int) *checkpoint.Tensor {
	t, err := l.src.Want(name, shape...)
	if err != nil {
		if !l.failed[name] {
			l.failed[name] = true
			l.add(err)
		}
		if t, ok := l.src.Get(name); ok {
			l.entries[name] = entryFor(t, action) // so that it does not count as left over, too
		}
		return nil
	}
	if e := l.entries[name]; e == nil {
		l.entries[name] = entryFor(t, action)
	}
	return t
}

func entryFor(t *checkpoint.Tensor, action Action) *Entry {
	return &Entry{Tensor: t.Name, DType: t.DType.String(), Shape: t.Shape, Bytes: t.Size(), Action: action}
}

// leadsTo enters the targets of a source tensor.
func (l *ledger) leadsTo(name string, targets ...string) {
	if e := l.entries[name]; e != nil {
		e.Targets = append(e.Targets, targets...)
	}
}

// close drops what is known to be droppable, makes a problem of every other tensor that has no entry, and returns the
// entries in the order of the names.
func (l *ledger) close() []Entry {
	var out []Entry
	for _, name := range l.src.Names() {
		e := l.entries[name]
		if e == nil {
			t, _ := l.src.Get(name)
			e = entryFor(t, Dropped)
			if e.Reason = l.dropReason(name); e.Reason == "" {
				l.add(l.leftover(t))
			}
		}
		out = append(out, *e)
	}
	return out
}

func (l *ledger) dropReason(name string) string {
	t := &l.model.Family.Tensors
	for _, suffix := range t.Derived {
		if strings.HasSuffix(name, suffix) {
			return "follows from the configuration"
		}
	}
	if name == t.Head && l.model.Tied {
		return "tied to " + t.Embed + ", which is written in its place"
	}
	return ""
}

// leftover is the problem of a tensor that nobody asked for.
func (l *ledger) leftover(t *checkpoint.Tensor) error {
	if layer, ok := layerOf(l.model.Family.Tensors.LayerPrefix, t.Name); ok && layer >= l.model.Layers {
		return &checkpoint.Error{
			Kind: checkpoint.BadSource, File: t.File, Tensor: t.Name, Got: fmt.Sprintf("a tensor of layer %d", layer),
			Want: fmt.Sprintf("layers 0 to %d, as num_hidden_layers in config.json says", l.model.Layers-1),
		}
	}
	return &checkpoint.Error{
		Kind: checkpoint.Unsupported, File: t.File, Tensor: t.Name,
		Got: fmt.Sprintf("a tensor that %s checkpoints do not have", l.model.Family.Name), Want: "only tensors that can be converted or copied",
	}
}

// layerOf reads the layer number out of a name that begins with a layer prefix such as model.layers.%d. (its last dot
// included).
func layerOf(layerPrefix, name string) (int, bool) {
	before, after, _ := strings.Cut(layerPrefix, "%d")
	rest, ok := strings.CutPrefix(name, before)
	if !ok {
		return 0, false
	}
	digits, _, ok := strings.Cut(rest, after)
	if !ok {
		return 0, false
	}
	layer, err := strconv.Atoi(digits)
	return layer, err == nil && layer >= 0
}
