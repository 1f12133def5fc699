package mla

import "github.com/mlaconvert/mlaconvert/svd"

// Statistics are second moments of one layer over calibration tokens. a_mn is the attention of query m to key n and
// xbar_m = sum_n a_mn x_n what a head averages, both of the source; E is the mean over query tokens m, which count alike.
// With a basis x stands for its coordinates P x and d for their number, throughout.
type Statistics struct {
	// Basis is nil where x is the layer's inputs themselves.
	Basis *Basis
	// Input is E[x x^T], [d, d].
	Input svd.Matrix
	// Heads holds the moments of each query head.
	Heads []HeadStatistics
}

// HeadStatistics are the moments of one query head.
type HeadStatistics struct {
	// Softmax is E[ sum_n a_mn x_n x_n^T - xbar_m xbar_m^T ], [d, d]: what an error of the keys costs, through the
	// softmax Jacobian diag(a) - a a^T (an error that is the same for all keys of a query cancels).
	Softmax svd.Matrix
	// Mean is E[xbar], [d], and Averaged the covariance E[(xbar-Mean) (xbar-Mean)^T], [d, d]: what an error of the values
	// costs where attention averages them, but for its constant part, which an output bias carries.
	Mean     []float64
	Averaged svd.Matrix
	// Query is E[q q^T] before the rotation, [HeadDim, HeadDim].
	Query svd.Matrix
	// Squared is E[sum_n a_mn^2].
	Squared float64
	// Distances is the distribution of m-n weighted by the sensitivity a(1-a).
	Distances Weights
}
