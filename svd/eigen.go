package svd

// Eigen holds k eigenpairs of a symmetric n x n matrix.
type Eigen struct {
	Values  []float64 // k eigenvalues, descending
	Vectors Matrix    // n x k, orthonormal columns, the largest component of each positive

	Trace float64 // sum of all n eigenvalues of the matrix

	Iterations int  // products of the matrix with a block; 0 for a direct solution
	Converged  bool // false when MaxIterations came before Tol

	lowest float64 // the smallest of all n eigenvalues, from a direct solution
}
