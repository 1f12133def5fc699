package model

import (
	"fmt"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
)

// Network is a decoder whose layers are loaded one at a time.
type Network struct {
	arch.Shape
	// Dir is the checkpoint's folder.
	Dir       string
	src       *checkpoint.Source
	tensors   *arch.Tensors
	attention func(layer int, l *loader) Attention
	head      Weight
	embed     Weight
	finalNorm []float32
	headName  string
	// inFlight is the [Batch.InFlight] of what is embedded, release makes weights give their pages back.
	inFlight int
	release  bool
}

// Save makes the network keep less in memory at once, at some cost in time and none in results: attention holds the
// queries, keys and values of at most so many tokens (0 stands for 4,096) of any batch that is embedded after this, and with
// release the pages of a weight are given back after every product with it.
func (n *Network) Save(inFlight int, release bool) error {
	n.inFlight, n.release = inFlight, release
	for _, w := range []struct {
		name   string
		weight *Weight
	}{{n.tensors.Embed, &n.embed}, {n.headName, &n.head}} {
		w.weight.release = nil
		if release {
			t, err := n.src.Want(w.name)
			if err != nil {
				return err
			}
			w.weight.release = t.Release
		}
	}
	return nil
}

// OpenSource prepares the network of a source checkpoint. The source must stay open as long as the network is used.
func OpenSource(src *checkpoint.Source, m *arch.Model) (*Network, error) {
	t := &m.Family.Tensors
	n := &Network{Shape: m.Shape, Dir: src.Dir(), src: src, tensors: t}
	frequencies := m.Rope.Frequencies(m.HeadDim)
	n.attention = func(layer int, l *loader) Attention {
		q, kv := m.Heads*m.HeadDim, m.KVHeads*m.HeadDim
		return &GQA{
			Heads: m.Heads, KVHeads: m.KVHeads, HeadDim: m.HeadDim, Frequencies: frequencies,
			Q: l.weight(t.Layer(layer, t.Q), q, m.Hidden), K: l.weight(t.Layer(layer, t.K), kv, m.Hidden),
			V: l.weight(t.Layer(layer, t.V), kv, m.Hidden), O: l.weight(t.Layer(layer, t.O), m.Hidden, q),
		}
	}
	head := t.Head
	if _, ok := src.Get(head); m.Tied || !ok {
		head = t.Embed
	}
	return n, n.open(head)
}

// OpenMLA prepares the network of a converted checkpoint, its latent norm included, as a stock engine computes it.
func OpenMLA(src *checkpoint.Source, m *arch.MLA) (*Network, error) {
	t := &arch.MLATensors
	n := &Network{Shape: m.Shape, Dir: src.Dir(), src: src, tensors: &t.Tensors}
	frequencies := m.Rope.Frequencies(m.RopeDim)
	n.attention = func(layer int, l *loader) Attention {
		name := func(s string) string { return t.Layer(layer, s) }
		a := &MLA{
			Heads: m.Heads, NoPEDim: m.NoPEDim, RopeDim: m.RopeDim, VDim: m.VDim, Rank: m.Rank, Frequencies: frequencies,
			Q:          l.weight(name(t.Q), m.Heads*(m.NoPEDim+m.RopeDim), m.Hidden),
			KVDown:     l.weight(name(t.KVDown), m.Rank+m.RopeDim, m.Hidden),
			LatentNorm: l.vector(name(t.LatentNorm), m.Rank), LatentEps: m.LatentEps,
			KVUp:        l.weight(name(t.KVUp), m.Heads*(m.NoPEDim+m.VDim), m.Rank),
			O:           l.weight(name(t.O), m.Hidden, m.Heads*m.VDim),
			ScoreFactor: m.Rope.ScoreFactor(),
		}
		if m.Bias {
			a.KVDownBias = l.vector(name(t.KVDownBias), m.Rank+m.RopeDim)
			a.OBias = l.vector(name(t.OBias), m.Hidden)
		}
		return a
	}
	return n, n.open(t.Head)
}

func (n *Network) open(head string) error {
	l := &loader{src: n.src}
	n.headName = head
	n.embed = l.weight(n.tensors.Embed, n.Vocab, n.Hidden)
	n.finalNorm = l.vector(n.tensors.FinalNorm, n.Hidden)
	n.head = l.weight(head, n.Vocab, n.Hidden)
	return l.err
}

// loader reads the tensors of one layer; the first error sticks.
type loader struct {
	src  *checkpoint.Source
	used []*checkpoint.Tensor
	// release is that of the network.
	release bool
	err     error
}

func (l *loader) want(name string, shape ...int) *checkpoint.Tensor {
	if l.err != nil {
		return nil
	}
	t, err := l.src.Want(name, shape...)
	if err != nil {
		l.err = err
		return nil
	}
	l.used = append(l.used, t)
	return t
}

func (l *loader) weight(name string, out, in int) Weight {
	t := l.want(name, out, in)
	if t == nil {
		return Weight{}
	}
	w, err := loadWeight(t)
	if err != nil {
		l.err = err
	}
	if l.release {
		w.release = t.Release
	}
	return w
}

func (l *loader) vector(name string, n int) []float32 {
	t := l.want(name, n)
	if t == nil {
		return nil
	}
	v, err := t.Float32(nil)
	if err != nil {
		l.err = err
	}
	return v
}

// Block loads one layer. Close it when it has been used.
func (n *Network) Block(layer int) (*Block, error) {
	l := &loader{src: n.src, release: n.release}
	t := n.tensors
	name := func(s string) string { return t.Layer(layer, s) }
	b := &Block{
		Hidden: n.Hidden, Eps: n.NormEps,
		AttnNorm:  l.vector(name(t.AttnNorm), n.Hidden),
		MLPNorm:   l.vector(name(t.MLPNorm), n.Hidden),
		Attention: n.attention(layer, l),
		MLP: MLP{
			Gate: l.weight(name(t.Gate), n.Intermediate, n.Hidden),
			Up:   l.weight(name(t.Up), n.Intermediate, n.Hidden),
			Down: l.weight(name(t.Down), n.Hidden, n.Intermediate),
		},
	}
	if l.err != nil {
		return nil, l.err
	}
	b.release = func() {
		for _, t := range l.used {
			t.Release()
		}
	}
	return b, nil
}

// Embed returns the residual stream [tokens, Hidden] before the first layer, and sets how much of the batch attention holds
// at once.
func (n *Network) Embed(b *Batch) ([]float32, error) {
	b.InFlight = n.inFlight
	if err := b.Check(n.Vocab); err != nil {
		return nil, err
	}
	x := make([]float32, b.Tokens()*n.Hidden)
	for i, id := range b.IDs {
		n.embed.Row(id, x[i*n.Hidden:(i+1)*n.Hidden])
	}
	n.embed.used()
	return x, nil
}

// Forward runs every layer over a batch and returns the residual stream after the last, [tokens, Hidden].
func (n *Network) Forward(e *blas.Engine, b *Batch) ([]float32, error) {
	x, err := n.Embed(b)
	if err != nil {
		return nil, err
	}
	for layer := range n.Layers {
		block, err := n.Block(layer)
		if err != nil {
			return nil, err
		}
		block.Forward(e, b, x)
		block.Close()
	}
	return x, nil
}

// logitRows is how many tokens' logits are held at once for a vocabulary, near 64 MiB.
func logitRows(vocab int) int { return max(1, min(256, 16<<20/vocab)) }

// Logits calls visit with slices of the logits of the residual streams x [rows, Hidden]: logits [m, Vocab] of rows lo to
// lo+m-1, valid during the call.
func (n *Network) Logits(e *blas.Engine, rows int, x []float32, visit func(lo, m int, logits []float32)) {
	step := min(rows, logitRows(n.Vocab))
	h := make([]float32, step*n.Hidden)
	out := make([]float32, step*n.Vocab)
	for lo := 0; lo < rows; lo += step {
		m := min(step, rows-lo)
		RMSNorm(e, m, x[lo*n.Hidden:(lo+m)*n.Hidden], n.finalNorm, n.NormEps, h)
		n.head.Apply(e, m, h, n.Hidden, 0, out, n.Vocab)
		visit(lo, m, out[:m*n.Vocab])
	}
}

// Head returns the final norm's weight and the output projection.
func (n *Network) Head() (norm []float32, w Weight) { return n.finalNorm, n.head }

// String names the network for messages.
func (n *Network) String() string {
	return fmt.Sprintf("%s (%d layers, hidden %d)", n.Dir, n.Layers, n.Hidden)
}
