// Package calibrate converts the layers of a network with measured statistics: second moments of the source on
// calibration tokens, a choice among candidate factorizations on held-out tokens, a refit of each output projection, a
// polish of some layers together by gradient descent, and a correction of all against the source's logits.
//
// No labels and no data are needed: the tokens may be the source's own samples. Every squared error weights a token by
// 1/mean(x^2) of its residual stream. Results depend on the seed and not on the number of threads.
package calibrate
