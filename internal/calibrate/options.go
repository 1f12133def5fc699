package calibrate

import (
	"slices"
	"time"

	"github.com/mlaconvert/mlaconvert/mla"
)

// Options configures [Run].
type Options struct {
	// Rank is the width of the latent that carries content; Frequencies those of the shared rotary key.
	Rank        int
	Frequencies []float64
	// Context is the context length, in tokens, that the conversion is meant for.
	Context int
	// HoldOut is how many of the sequences (the last ones) are kept from every fit and decide every choice.
	HoldOut int
	// FitTokens bounds the tokens that the layers are fitted and refit to, where there are twice as many or more: the descents
	// see the others, which nothing was fitted to (see [Options.Share]). At 0 they see the same.
	FitTokens int
	// StatisticsTokens bounds the tokens that the second moments are taken from.
	StatisticsTokens int
	// Copies are added to the tokens of fits, polish and corrections in windows, and to those held out, and count as neither
	// FitTokens nor HoldOut. Long texts have their own.
	Copies     Copies
	Candidates []mla.Candidate
	Refit      bool
	Polish     Polish
	// Distill are the corrections of all layers together, one after the other: those on windows first, then one on long texts.
	Distill []Distill
	Neutral Neutral
	Seed    uint64
	// Recompute has the descents compute each layer's way forward again on the way back instead of keeping that of all, which
	// takes less memory and gives the same.
	Recompute bool
	// Shelf, if set, keeps what is done, and gives what it has of an earlier run that was interrupted.
	Shelf Shelf
	// KeepEvery is how long a descent goes on, at least, before its state is kept again; at 0 that is behind every step.
	KeepEvery time.Duration
	// Progress, if set, is told of every finished step.
	Progress func(Step)
}

// Share is how so many tokens that are not held out, in windows of the given length, are shared: those that layers are fitted
// to, others that the descents see, and half of these others for a correction in long texts alone, which sees them all, where that
// is FitTokens or more. Without others, the descents see those of the fits. Copies are not counted.
func (o *Options) Share(tokens, window int) (fit, descents, texts int) {
	if o.FitTokens == 0 || tokens < 2*o.FitTokens {
		return tokens, 0, 0
	}
	fit = max(window, o.FitTokens/window*window)
	descents = tokens - fit
	long := slices.ContainsFunc(o.Distill, func(d Distill) bool { return d.Windows > 1 })
	if half := descents / 2 / window * window; long && half >= o.FitTokens {
		texts = half
	}
	return fit, descents - texts, texts
}

// Descent configures a gradient descent; zero Steps leave it out.
type Descent struct {
	Steps int
	// Sequences is how many sequences a step sees.
	Sequences int
	// Rate is the learning rate that is tried first, as a share of the standard deviation of each tensor.
	Rate float64
	// Constant is the share of the steps, below 1, behind which the rate falls to nothing, evenly.
	Constant float64
}

// Polish configures the gradient descent of some consecutive layers on the drift of the residual stream, once they are
// fitted and refit and before those behind them are.
type Polish struct {
	Descent
	// Layers is how many layers go together.
	Layers int
	// EarlySteps takes the place of Steps for the first of them, where drift begins.
	EarlySteps int
}

// Distill configures a correction of all layers together. A step sees as many texts as Sequences windows make, one at least.
type Distill struct {
	Descent
	Repetition
	// Matching is the weight of the drift of the residual stream beside the divergence of the logits: the mean over layers
	// of the squared relative error behind each.
	Matching float64
}

// Texts returns the length of the texts that are made of windows of the given length for a network of the given context, and
// how many of them a step sees.
func (o *Distill) Texts(window, context int) (length, sequences int) {
	together := o.together(window, context)
	return together * window, max(1, o.Sequences/together)
}

// Step is one finished step of the work.
type Step struct {
	Name        string
	Layer, Done int
	Total       int
	// Figure is the step's held-out error.
	Figure float64
}

// LayerReport is what the calibration measured of a layer: relative root-mean-square errors on held-out tokens.
type LayerReport struct {
	Layer     int           `json:"layer"`
	Candidate mla.Candidate `json:"candidate"`
	// Isolated is the attention's error on the source's own input; Start, Refit and Polish are errors behind the
	// converted layers before this one, against the source's output plus the drift of the residual stream.
	Isolated float64 `json:"isolated_error"`
	Start    float64 `json:"start_error"`
	Refit    float64 `json:"refit_error"`
	Ridge    float64 `json:"ridge,omitempty"`
	Polish   float64 `json:"polish_error"`
	// Drift is the relative error of the residual stream after the layer, Corrected the same after the correction of all
	// layers together, which lowers the divergence of the logits and not necessarily this.
	Drift     float64 `json:"drift"`
	Corrected float64 `json:"corrected_drift,omitempty"`
	// Norm is set where the engine has no biases.
	Norm *NormReport `json:"latent_norm,omitempty"`
}
