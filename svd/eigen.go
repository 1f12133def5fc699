package svd

// Eigen holds k eigenpairs of a symmetric n x n matrix.
type Eigen struct {
	Values  []float64 // k eigenvalues, descending
	Vectors Matrix    // n x k, orthonormal columns, the largest component of each positive

	Trace float64 // sum of all n eigenvalues of the matrix

	// Basis has orthonormal columns that span the vectors and a few more
	// directions: a Start for a similar problem. TopEigen alone sets it.
	Basis      Matrix
	Iterations int  // products of the matrix with a block; 0 for a direct solution
	Converged  bool // false when MaxIterations came before Tol
}
