package calibrate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/mla"
	"github.com/mlaconvert/mlaconvert/svd"
)

// Neutral configures how kv_a_layernorm is neutralised where the engine has no biases; a zero Width leaves it as it is, for
// a constant channel.
type Neutral struct {
	// Width is kv_lora_rank, more than Rank: what the content leaves of it is energy rows.
	Width int
	// Tokens bounds the tokens that an energy is fitted to, Steps its iterations.
	Tokens, Steps int
}

// NormReport is what the neutralisation of a layer's latent norm came to, measured on held-out tokens unless there are none.
type NormReport struct {
	// Content and Energy are the rows of the latent.
	Content int `json:"content_rows"`
	Energy  int `json:"energy_rows"`
	// Fluctuation is the relative standard deviation of the norm's factor.
	Fluctuation float64 `json:"fluctuation"`
	// Start is the error of the layer's output that the norm causes, against what the converted layer gives without it plus
	// the drift of the residual stream; Refit is that after the refit of the output projection.
	Start float64 `json:"start_error,omitempty"`
	Refit float64 `json:"refit_error,omitempty"`
	Ridge float64 `json:"ridge,omitempty"`
}

// neutralise gives every layer a latent that the norm leaves alone, one behind the other, so that each is fitted on the
// inputs that it will see, with the norms of the layers before it in the stream. What it follows is not the source but the
// network as it was converted and corrected so far, without norms: of the two streams the first is that network's.
func (r *run) neutralise(ctx context.Context, layers []*model.MLA, reports []LayerReport) error {
	var err error
	if r.fit, err = newStreams(r.net, r.fit.batch); err != nil {
		return err
	}
	if r.hold, err = newStreams(r.net, r.hold.batch); err != nil {
		return err
	}
	for layer := range layers {
		if err := ctx.Err(); err != nil {
			return err
		}
		if layers[layer], reports[layer].Norm, err = r.neutralLayer(layer, layers[layer]); err != nil {
			return fmt.Errorf("layer %d: latent norm: %w", layer, err)
		}
		r.tell(Step{Name: "neutral", Layer: layer, Done: layer + 1, Total: len(layers), Figure: reports[layer].Norm.Fluctuation})
	}
	return nil
}

// neutralLayer does one layer and moves both streams past it. Where the content leaves few rows, more energy rows are tried
// at its cost, as long as the output on held-out tokens gains.
func (r *run) neutralLayer(layer int, a *model.MLA) (*model.MLA, *NormReport, error) {
	block, err := r.net.Block(layer)
	if err != nil {
		return nil, nil, err
	}
	defer block.Close()
	block.Attention = a
	train, hold := r.data(block, r.fit), r.data(block, r.hold)
	o := r.options.Neutral
	if o.Width-a.Rank >= manyRows {
		o.Tokens, o.Steps = (o.Tokens+3)/4, (o.Steps+3)/4
	}
	fit := mla.EnergyOptions{
		Gamma: float64s(block.AttnNorm), Rows: o.Width, Steps: o.Steps, Engine: r.engine,
		Train: r.energyTokens(a, train, o.Tokens), Hold: r.energyTokens(a, hold, max(1, o.Tokens/4)),
	}
	report := &NormReport{Start: math.Inf(1)}
	whole := a.ToAttention()
	var inputs *inputMoments
	var best *model.MLA
	for energyRows := o.Width - whole.Rank(); ; energyRows *= 2 {
		part := whole
		if content := o.Width - energyRows; content < whole.Rank() {
			if energyRows > maxTradedRows || content < 1 {
				break
			}
			if inputs == nil {
				inputs = r.inputMoments(a, train)
			}
			if part, err = whole.Narrow(r.engine, content, inputs.covariance, inputs.queries); err != nil {
				return nil, nil, err
			}
		}
		fit.Down = part.Down
		energy, err := mla.FitEnergy(fit)
		if err != nil {
			return nil, nil, err
		}
		b := normed(part.WithEnergy(r.engine, energy))
		e, err := r.carryBias(b, train, hold)
		if err != nil {
			return nil, nil, err
		}
		if !(e < report.Start) {
			break
		}
		best, report.Start, report.Fluctuation = b, e, energy.Fluctuation
		report.Content, report.Energy = part.Rank(), b.Rank-part.Rank()
	}
	if best == nil {
		return nil, nil, errors.New("the error of the output is not finite")
	}
	r.attend(best, train, hold)
	refitted := &LayerReport{Refit: report.Start}
	if err := r.refit(best, train, hold, refitted); err != nil {
		return nil, nil, err
	}
	report.Refit, report.Ridge = refitted.Refit, refitted.Ridge
	r.advance(block, r.fit, train)
	r.advance(block, r.hold, hold)
	return best, report, nil
}

// manyRows is how many energy rows beside the content make a form that is near the exact one from the outset; each of them is
// as much work in the fit as all of a small content.
const manyRows = 64

// maxTradedRows bounds the energy rows that content makes room for. On SmolLM2-135M at 129 rows one was best in most
// layers, and eight cost more than they gained in all.
const maxTradedRows = 8

// normed is the float32 form of an attention whose latent is of length 1 or so, with the norm that makes it so.
func normed(m *mla.Attention) *model.MLA {
	a := model.FromAttention(m)
	a.LatentNorm = make([]float32, a.Rank)
	for i := range a.LatentNorm {
		a.LatentNorm[i] = float32(1 / math.Sqrt(float64(a.Rank)))
	}
	a.LatentEps = 1e-12 // the engine's is as small beside the latent in the checkpoint
	return a
}

// constantRidge is the share of the latent's mean energy in the regression for a constant function of it.
const constantRidge = 1e-4

// biasRidges are the shares of the mean energy of the output projection's columns that the regression for the values that
// make the bias tries: the smaller, the nearer to the bias, and the more the values multiply what the latent's function
// wavers by.
var biasRidges = []float64{1e-5, 1e-4, 1e-3, 1e-2}

// carryBias moves the output bias into the values: attention sums to 1, so values beta_h with sum_h W_O,h beta_h = b are the
// bias. They ride on g^T c, the linear function of the normed latent c that comes nearest to 1 on the training tokens. It
// returns the error of the output on the tokens held out, which decides how far the bias is followed.
func (r *run) carryBias(a *model.MLA, train, hold *layerData) (float64, error) {
	bias := a.OBias
	a.OBias = nil
	e, n := r.engine, train.batch.Tokens()
	latent := make([]float32, n*a.Rank)
	a.Latents(e, n, train.convertedIn, latent)
	gram, mean := svd.NewMatrix(a.Rank, a.Rank), svd.NewMatrix(a.Rank, 1)
	e.SsyrkAcc(a.Rank, n, 1/float64(n), latent, a.Rank, gram.Data, a.Rank)
	for t := range n {
		for j, v := range latent[t*a.Rank : (t+1)*a.Rank] {
			mean.Data[j] += float64(v) / float64(n)
		}
	}
	g, err := svd.SolveSPD(e, gram, constantRidge*meanDiagonal(gram), mean)
	if err != nil {
		return 0, fmt.Errorf("constant function of the latent: %w", err)
	}
	w := widen(&a.O)
	square := svd.Product(e, true, false, w, w)
	b := svd.Matrix{Rows: len(bias), Cols: 1, Stride: 1, Data: float64s(bias)}
	right := svd.Product(e, true, false, w, b)
	up, best, least := a.KVUp.F32, a.KVUp.F32, math.Inf(1)
	y := make([]float32, len(hold.output))
	for _, ridge := range biasRidges {
		beta, err := svd.SolveSPD(e, square, ridge*meanDiagonal(square), right)
		if errors.Is(err, svd.ErrNotPositive) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("values that make the bias: %w", err)
		}
		a.KVUp.F32 = slices.Clone(up)
		for h := range a.Heads {
			for i := range a.VDim {
				row := a.KVUp.F32[(h*(a.NoPEDim+a.VDim)+a.NoPEDim+i)*a.Rank:][:a.Rank]
				for j := range row {
					row[j] += float32(beta.Data[h*a.VDim+i] * g.Data[j])
				}
			}
		}
		a.Forward(e, hold.batch, hold.convertedIn, y)
		if err := relativeError(y, hold.target, hold.weights); err < least {
			best, least = a.KVUp.F32, err
		}
	}
	a.KVUp.F32 = best
	if math.IsInf(least, 1) { // no values make a bias where the output projection is zero, as pruning leaves it
		a.Forward(e, hold.batch, hold.convertedIn, y)
		least = relativeError(y, hold.target, hold.weights)
	}
	return least, nil
}

func meanDiagonal(a svd.Matrix) float64 {
	sum := 0.0
	for i := range a.Rows {
		sum += a.At(i, i)
	}
	return sum / float64(a.Rows)
}

// inputMoments are the second moments under which a latent is narrowed.
type inputMoments struct {
	covariance svd.Matrix   // E[x x^T]
	queries    []svd.Matrix // E[q_h q_h^T] of the part without rotation
}

func (r *run) inputMoments(a *model.MLA, t *layerData) *inputMoments {
	n, d := t.batch.Tokens(), a.Q.In
	m := &inputMoments{covariance: svd.NewMatrix(d, d)}
	r.engine.SsyrkAcc(d, n, 1/float64(n), t.convertedIn, d, m.covariance.Data, d)
	q := make([]float32, n*a.Q.Out)
	a.Q.Apply(r.engine, n, t.convertedIn, d, 0, q, a.Q.Out)
	for h := range a.Heads {
		m.queries = append(m.queries, queryCovariance(r.engine, q[h*(a.NoPEDim+a.RopeDim):], n, a.Q.Out, a.NoPEDim))
	}
	return m
}

func float64s(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

// sinkWeight is how many times the mean a token must count to be in the sample of an energy's tokens without fail.
const sinkWeight = 8

// energyTokens takes about most of a layer's inputs. Each counts half for itself and half for the squared attention that
// heads pay to it: an error of its latent's length costs that much. So the few tokens on which attention rests count for
// many; those that count most are always among the tokens taken, the others evenly over the sequences.
func (r *run) energyTokens(a *model.MLA, t *layerData, most int) mla.EnergyTokens {
	n := t.batch.Tokens()
	d := len(t.convertedIn) / n
	weights := a.SquaredAttention(r.engine, t.batch, t.convertedIn)
	sum := 0.0
	for _, v := range weights {
		sum += v
	}
	sinks := 0
	for i, v := range weights {
		weights[i] = (1 + v*float64(n)/sum) / 2
		if weights[i] >= sinkWeight {
			sinks++
		}
	}
	step := max(1, (n-sinks+most-1)/most)
	var taken []int
	others := 0
	for i, w := range weights {
		if w >= sinkWeight {
			taken = append(taken, i)
			continue
		}
		if others%step == 0 {
			taken = append(taken, i)
		}
		others++
	}
	out := mla.EnergyTokens{Inputs: svd.NewMatrix(len(taken), d), Weights: make([]float64, len(taken))}
	for k, i := range taken {
		row := out.Inputs.Row(k)
		for j, v := range t.convertedIn[i*d : (i+1)*d] {
			row[j] = float64(v)
		}
		out.Weights[k] = weights[i]
		if weights[i] < sinkWeight {
			out.Weights[k] *= float64(step)
		}
	}
	return out
}
