package convert

import (
	"fmt"
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/engine"
)

// Plan is what a conversion will do, found from headers alone.
type Plan struct {
	Recipe Recipe
	Source *arch.Model
	// Engine is what the output is for, Target what it computes: the padding that it needs included.
	Engine *engine.Engine
	Target *arch.MLA
	// RopeError is the largest relative error of a rotary frequency, where the engine has not the source's scaling: of those
	// that the source, or a rotary key of the target's width if that is smaller, would have, each against the nearest there is.
	RopeError float64
	// DType is that of the source's attention tensors and so, unless the recipe says otherwise, of the converted ones.
	DType checkpoint.DType
	// Ledger holds every tensor of the source, sorted by name.
	Ledger []Entry
	// Files are the files beside the source's weights, sorted by name.
	Files  []File
	Layout *checkpoint.Layout
	Cache  Cache
	// SourceBytes is the size of the source's tensors.
	SourceBytes int64
	// Warnings are for the user's eyes: none keeps the conversion from being made.
	Warnings []string

	src   *checkpoint.Source
	units []*unit // in the order of the layout
}

// NewPlan plans the conversion of an open source by the given recipe, whose defaults it fills in. It reads headers only.
// The error is [Problems] or an error about the configuration.
func NewPlan(src *checkpoint.Source, recipe Recipe) (*Plan, error) {
	if err := recipe.Check(); err != nil {
		return nil, err
	}
	model, err := arch.Parse(src.Config())
	if err != nil {
		return nil, err
	}
	recipe.resolve(model)
	e := engine.Lookup(recipe.Engine)
	p := &Plan{
		Recipe: recipe, Source: model, Engine: e, src: src,
		Target: &arch.MLA{
			Shape: model.Shape, Rank: recipe.Rank,
			NoPEDim: model.HeadDim, RopeDim: recipe.RopeDim, VDim: model.HeadDim, Bias: e.Biases, LatentEps: e.Eps(&model.Shape),
		},
		Cache: Cache{Source: model.CacheFloats()},
	}
	p.setTheta(model.Rope.Theta)
	e.Pad(p.Target)
	if err := p.checkEngine(); err != nil {
		return nil, err
	}
	p.Cache.Target = p.Target.CacheFloats()
	p.Cache.Ratio = float64(p.Cache.Target) / float64(p.Cache.Source)
	if n := len(src.Names()); model.Layers > n {
		// The lists below grow with the number of layers, which a configuration can claim freely.
		return nil, Problems{&checkpoint.Error{
			Kind: checkpoint.BadSource, File: src.Dir(), Tensor: "num_hidden_layers", Got: fmt.Sprint(model.Layers),
			Want: fmt.Sprintf("layers that have tensors; there are %d tensors", n),
		}}
	}
	if err := p.lay(); err != nil {
		return nil, err
	}
	if p.Files, err = listFiles(src); err != nil {
		return nil, err
	}
	p.warn()
	return p, nil
}

// lay makes the ledger, the units and the layout.
func (p *Plan) lay() error {
	m, names := p.Source, &p.Source.Family.Tensors
	target := &arch.MLATensors
	l := &ledger{src: p.src, model: m, entries: make(map[string]*Entry), failed: make(map[string]bool)}

	attention := make([]*checkpoint.Tensor, 0, 4*m.Layers)
	for layer := range m.Layers {
		for _, want := range []struct {
			name       string
			rows, cols int
		}{
			{names.Q, m.Heads * m.HeadDim, m.Hidden}, {names.K, m.KVHeads * m.HeadDim, m.Hidden},
			{names.V, m.KVHeads * m.HeadDim, m.Hidden}, {names.O, m.Hidden, m.Heads * m.HeadDim},
		} {
			attention = append(attention, l.take(Converted, names.Layer(layer, want.name), want.rows, want.cols))
		}
	}
	p.DType = p.attentionDType(attention)

	begin := func(name string, layer int) *unit {
		u := &unit{name: name, layer: layer, copies: make(map[string]*checkpoint.Tensor)}
		p.units = append(p.units, u)
		return u
	}
	copied := func(u *unit, from, to string, shape ...int) {
		if t := l.take(Copied, from, shape...); t != nil {
			u.add(to, p.Recipe.dtype(t.DType), shape...)
			u.copies[to] = t
			l.leadsTo(from, to)
		}
	}
	copied(begin("embedding", -1), names.Embed, target.Embed, m.Vocab, m.Hidden)
	for layer := range m.Layers {
		u := begin(fmt.Sprintf("layer %d", layer), layer)
		from := func(s string) string { return names.Layer(layer, s) }
		to := func(s string) string { return target.Layer(layer, s) }
		copied(u, from(names.AttnNorm), to(target.AttnNorm), m.Hidden)
		for _, s := range p.AttentionSpecs() {
			u.add(to(s.Name), s.DType, s.Shape...)
		}
		l.leadsTo(from(names.Q), to(target.Q))
		l.leadsTo(from(names.K), to(target.KVDown), to(target.KVUp))
		l.leadsTo(from(names.V), to(target.KVDown), to(target.KVUp))
		l.leadsTo(from(names.O), to(target.O))
		copied(u, from(names.MLPNorm), to(target.MLPNorm), m.Hidden)
		copied(u, from(names.Gate), to(target.Gate), m.Intermediate, m.Hidden)
		copied(u, from(names.Up), to(target.Up), m.Intermediate, m.Hidden)
		copied(u, from(names.Down), to(target.Down), m.Hidden, m.Intermediate)
	}
	u := begin("head", -1)
	copied(u, names.FinalNorm, target.FinalNorm, m.Hidden)
	head := names.Head
	if m.Tied {
		head = names.Embed
	} else if _, ok := p.src.Get(head); !ok {
		l.add(&checkpoint.Error{
			Kind: checkpoint.BadSource, File: p.src.Dir(), Tensor: head, Got: "no such tensor, and config.json does not tie it",
			Want: "the output head", Hint: "if the embedding serves as the head, set tie_word_embeddings to true in config.json",
		})
		head = ""
	}
	if head != "" {
		copied(u, head, target.Head, m.Vocab, m.Hidden)
	}

	p.Ledger = l.close()
	if err := l.err(); err != nil {
		return err
	}
	for _, e := range p.Ledger {
		p.SourceBytes += e.Bytes
	}
	var specs []checkpoint.Spec
	for _, u := range p.units {
		specs = append(specs, u.specs...)
	}
	var err error
	p.Layout, err = checkpoint.PlanLayout(specs, p.Recipe.MaxShardBytes)
	return err
}

// attentionDType is the common type of the attention tensors, or F32, which holds all the others, if they are mixed.
func (p *Plan) attentionDType(tensors []*checkpoint.Tensor) checkpoint.DType {
	var d checkpoint.DType
	for _, t := range tensors {
		switch {
		case t == nil: // a problem, and so no plan
		case d == 0:
			d = t.DType
		case d != t.DType:
			if p.Recipe.DType == DTypeKeep {
				p.warnf("the attention tensors are of several dtypes; the converted ones are written in F32, the others as they are")
			}
			return checkpoint.F32
		}
	}
	if d == 0 {
		return checkpoint.F32
	}
	return d
}

// TargetDType is the type of the converted tensors.
func (p *Plan) TargetDType() checkpoint.DType { return p.Recipe.dtype(p.DType) }

// UsefulRank is the largest number of latent rows that can carry anything: the rank of the stacked keys and values.
func (p *Plan) UsefulRank() int { return usefulRank(p.Source) }

func usefulRank(m *arch.Model) int { return min(m.Hidden, m.CacheFloats()) }

// ContentRank is the number of latent rows that the factorization gets: at least one is left for what neutralises the norm.
func (p *Plan) ContentRank() int { return min(p.Recipe.Rank, p.Target.Rank-1, p.UsefulRank()) }

// setTheta makes the target's rotary embedding that of the source with the given base, as far as the engine has it.
func (p *Plan) setTheta(theta float64) { p.Target.Rope, p.RopeError = p.targetRope(theta) }

// targetRope is the source's rotary embedding with another base, as the engine computes it at the target's width, and the
// largest relative error of a frequency.
func (p *Plan) targetRope(theta float64) (arch.Rope, float64) {
	return targetRope(p.Engine, p.Source, theta, p.Recipe.RopeDim)
}

func targetRope(e *engine.Engine, m *arch.Model, theta float64, width int) (arch.Rope, float64) {
	rope := m.Rope
	rope.Theta = theta
	target := e.Rope(rope, width, m.Context)
	if target.Type == rope.Type {
		return target, 0
	}
	worst := arch.FrequencyError(rope.Frequencies(min(width, m.HeadDim)), target.Frequencies(width))
	if worst < 1e-9 {
		worst = 0 // rounding
	}
	return target, worst
}

// ropeRemark says what became of a RoPE scaling that the engine has not, and "" if it has it.
func (p *Plan) ropeRemark(worst float64) string {
	source := p.Source.Rope.Type
	switch {
	case p.Target.Rope.Type == source:
		return ""
	case worst == 0:
		return fmt.Sprintf("%s has no RoPE scaling of type %s: it is written as a YaRN scaling with the same frequencies", p.Engine.Name, source)
	case source == arch.RopeLinear:
		return fmt.Sprintf("%s has no RoPE scaling of type %s: it is written as a YaRN scaling with the same frequencies but for the slowest, which is off by %.3g %%", p.Engine.Name, source, 100*worst)
	}
	return fmt.Sprintf("%s has no RoPE scaling of type %s: it is written as the nearest YaRN scaling, whose frequencies are off by %.3g %% at most", p.Engine.Name, source, 100*worst)
}

// checkEngine refuses what the engine cannot compute.
func (p *Plan) checkEngine() error {
	var problems problemList
	for _, l := range p.Engine.Check(p.Target) {
		problems.add(&checkpoint.Error{
			Kind: checkpoint.Unsupported, File: "engine " + p.Engine.Name, Tensor: l.Field, Got: l.Found, Want: l.Accepted, Hint: l.WayOut,
		})
	}
	return problems.err()
}

func (p *Plan) warnf(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); !slices.Contains(p.Warnings, s) {
		p.Warnings = append(p.Warnings, s)
	}
}

func (p *Plan) warn() {
	m := p.Source
	most := p.UsefulRank() + 1
	switch {
	case p.Recipe.Rank > most && p.Target.Bias:
		p.warnf("rank %d: at most %d rows are of use (%d for keys and values, 1 for the constant channel); the others are zero", p.Recipe.Rank, most, most-1)
	case p.Recipe.Rank > most:
		p.warnf("rank %d: at most %d rows are of use for keys and values; the others keep the latent's length constant", p.Recipe.Rank, most-1)
	}
	if rank := p.Target.Rank; rank > p.Recipe.Rank {
		more := ""
		if p.ContentRank() < p.UsefulRank() {
			more = fmt.Sprintf("; --rank %d costs no more cache and keeps more", rank)
		}
		p.warnf("kv_lora_rank is %d, which %s has kernels for, of which keys and values get %d%s", rank, p.Engine.Name, p.ContentRank(), more)
	}
	if t := p.Target; t.NoPEDim != m.HeadDim || t.VDim != m.HeadDim {
		p.warnf("heads are padded with zeros to qk_nope_head_dim %d and v_head_dim %d, which %s has kernels for", t.NoPEDim, t.VDim, p.Engine.Name)
	}
	if remark := p.ropeRemark(p.RopeError); remark != "" {
		p.warnf("%s", remark)
	}
	if !p.Target.Bias && p.Recipe.Calibration == nil {
		p.warnf("%s has no biases: without calibration tokens nothing is known of the inputs that the latent norm is to be neutralised for; verify says what is left of it", p.Engine.Name)
	}
	if p.Engine.Remarks != nil {
		for _, r := range p.Engine.Remarks(p.Target) {
			p.warnf("%s", r)
		}
	}
	if p.Cache.Target >= p.Cache.Source {
		p.warnf("the cache does not shrink: %d floats per token and layer, the source's is %d", p.Cache.Target, p.Cache.Source)
	}
	if p.Recipe.RopeDim > m.HeadDim {
		p.warnf("rope-dim %d: a head rotates only %d dimensions; rotary pairs of other frequencies than the source's stay empty", p.Recipe.RopeDim, m.HeadDim)
	}
	for _, f := range p.Files {
		if slices.Contains(copiedFiles, f.Name) && !f.Copied {
			p.warnf("%s is not copied: %s", f.Name, f.Reason)
		}
	}
	if m.Tied {
		p.warnf("the output head is tied to the embedding and is written out: %d x %d values more", m.Vocab, m.Hidden)
	}
}

// AttentionSpecs lists the converted tensors of one layer, by their names in the layer.
func (p *Plan) AttentionSpecs() []checkpoint.Spec { return attentionSpecs(p.Target, p.TargetDType()) }
