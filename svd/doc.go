// Package svd computes truncated factorizations of real matrices and of
// weighted joint stacks of matrices, with the energy they discard as an exact
// error bound. It also holds the dense symmetric solvers under them.
//
// Matrices are row-major. Energy means the squared Frobenius norm. Every
// routine gives the same bits whatever the number of threads of its engine,
// and its random starts have fixed seeds.
//
// # Truncated singular value decomposition
//
//	A = U diag(S) V^T + E,   A m x n, U m x r, V n x r,
//	Total = |A|^2,   Captured = sum of S^2,   Discarded = |E|^2 = Total - Captured
//
//	Exact(a Matrix, rank int) (*Truncation, error)                   gonum's SVD: the oracle
//	Truncate(a Matrix, rank int, opt Options) (*Truncation, error)   the fastest way to the tolerance
//
// By Eckart and Young no rank-r approximation has a smaller |E|^2 than the sum
// of the squared singular values after the r-th. Discarded is never below
// that, and is the true error of what is returned.
//
// Truncate, TopEigen and Joint look for the leading subspace of a symmetric
// positive semidefinite G in a block Krylov space [X, G X, G^2 X, ...] by the
// Rayleigh-Ritz procedure. For the same products with G that space holds the
// best polynomial filter of each degree and all lower ones, where subspace
// iteration has the single filter x^q: on singular values that fall like
// i^-0.5 to i^-1, a space of twice the rank leaves less excess error than
// eight products of subspace iteration with the whole basis, which are nine
// times the rank. The iteration stops by Options.Tol; what it returns is an
// orthonormal basis and its true error whether or not it has converged.
//
// # Symmetric and Hermitian eigenproblems
//
//	C = Z diag(Values) Z^T,   Values in descending order, Z orthonormal columns
//
//	EigSym(c Matrix, opt Options) (*Eigen, error)              all n pairs
//	TopEigen(c Matrix, k int, opt Options) (*Eigen, error)     the k leading pairs of a positive semidefinite C
//	EigHermitian(h CMatrix) (*HermitianEigen, error)           small complex Hermitian matrices
//
// # Positive definite systems
//
//	Cholesky(e *blas.Engine, a Matrix) (l Matrix, pivot int, ok bool)   A = L L^T
//	SolveLower(e *blas.Engine, l Matrix, trans bool, b Matrix)          B <- L^-1 B, or L^-T B
//	SolveLowerRight(e *blas.Engine, l Matrix, trans bool, b Matrix)     B <- B L^-1, or B L^-T
//	SolveSPD(e *blas.Engine, a Matrix, ridge float64, b Matrix) (x Matrix, err error)   (A + ridge I) X = B
//
//	Gemm(e *blas.Engine, transA, transB bool, alpha float64, a, b Matrix, beta float64, c Matrix)
//	Product(e *blas.Engine, transA, transB bool, a, b Matrix) Matrix
//
// # Weighted joint stack
//
// For blocks A_i (m_i x d) with left metrics Q_i (m_i x m_i) and one right
// metric C = L L^T (d x d), Joint finds the Down (r x d) and Up_i (m_i x r)
// that minimise
//
//	sum_i tr( Q_i (A_i - Up_i Down) C (A_i - Up_i Down)^T )
//
// over all Down and Up of rank r. With V_r the r leading eigenvectors of
// M = L^T K L, K = sum_i A_i^T Q_i A_i, and Lambda_r their eigenvalues,
//
//	Down = Lambda_r^-1 (L V_r)^T K,   Up_i = A_i C Down^T = A_i L V_r,   Down L = V_r^T,   Down C Down^T = I,
//	Total = tr M,   Captured = tr(V_r^T M V_r),   Discarded = Total - Captured,
//
// and the minimum equals Discarded. (With a V_r short of the eigenvectors by
// the tolerance, Up is still the best for its Down, and Discarded the true
// error.) Nothing is divided by C, which may be singular: a direction of weight
// zero costs nothing. There Down is what the formula gives, so that Up_i Down
// continues the least squares fit into directions that C has not seen: with
// Q_i = W_i^T W_i and U the left singular vectors of the stack of W_i A_i L,
// the stack of W_i Up_i Down is U U^T times the stack of W_i A_i.
//
// Large stacks under a diagonal C look for V_r in float32, where the energy that
// is discarded bounds what its rounding can cost by a thousandth of it (see
// single.go); Down, Up and the energies are computed in float64 from there.
//
//	IdentityMetric(n int) Metric
//	DiagonalMetric(g []float64) Metric       C = diag(g)^2, Q = diag(g)^2
//	FactorMetric(l Matrix) Metric            L L^T, L n x p
//	GramMetric(c Matrix) Metric              C itself, positive semidefinite
//	(Metric) Scaled(f float64) Metric        f C, f >= 0
//	(Metric) Congruence(e *blas.Engine, a Matrix) Matrix   A C A^T
//	(Metric) Inner(x Matrix) float64         tr(C X)
//	Joint(blocks []Block, c Metric, rank int, opt Options) (*JointFactors, error)
//
// # Errors
//
// What data can cause (a NaN or an infinity, a matrix that is not positive
// semidefinite beyond rounding, an iteration that does not converge) is
// returned as an error that wraps ErrNotFinite, ErrNotPositive or
// ErrNoConvergence. A caller's bug (shapes that do not fit, a negative rank)
// panics.
package svd
