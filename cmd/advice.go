package cmd

import (
	"context"
	"fmt"
	"math"

	"github.com/mlaconvert/mlaconvert/convert"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/engine"
	"github.com/mlaconvert/mlaconvert/verify"
)

// adviceSteps is how many ranks between the converted one and the largest useful one are looked at.
const adviceSteps = 12

// rankAdvice says what rank would make a poor conversion better, by the spectra of the source's weights: the smallest of
// some ranks that discards so much less that the divergence, if it were proportional, would come down to PoorRatio. It is
// empty for a conversion that is not poor.
func rankAdvice(ctx context.Context, src *checkpoint.Source, record *convert.Record, ratio float64, p progress) (string, error) {
	if !(ratio > verify.PoorRatio) {
		return "", nil
	}
	recipe := record.Recipe
	// The spectrum of the weights: it needs no tokens, and no engine pads it.
	recipe.Method, recipe.Calibration, recipe.Engine = convert.DataFree, nil, engine.Default
	plan, err := convert.NewPlan(src, recipe)
	if err != nil {
		return "", err
	}
	now, most := recipe.Rank, plan.UsefulRank()+1
	more := fmt.Sprintf("a wider rotary key (--rope-dim above %d), more calibration tokens or --effort best may help", recipe.RopeDim)
	if now >= most {
		return "no rank is better, everything fits already: " + more, nil
	}
	ranks := []int{now}
	for i := 1; i <= adviceSteps; i++ {
		ranks = append(ranks, now+(most-now)*i/adviceSteps)
	}
	spectra, err := plan.Spectra(ctx, ranks, 1, p)
	if err != nil {
		return "", err
	}
	discarded := make([]float64, len(ranks)) // mean over the layers
	for _, s := range spectra {
		for i, d := range s.Discarded {
			discarded[i] += d.Share / float64(len(spectra))
		}
	}
	want := discarded[0] * math.Log(verify.PoorRatio) / math.Log(ratio)
	for i, share := range discarded[1:] {
		if share <= want {
			return fmt.Sprintf("--rank %d is the smallest that would do, by the spectra of the weights: it discards %.2g %% of the energy beside the rotary key, where rank %d discards %.2g %%; or %s",
				ranks[i+1], 100*share, now, 100*discarded[0], more), nil
		}
	}
	return "no rank alone would do, by the spectra of the weights: " + more, nil
}
