package blas

// Messages of the panics that a caller's mistake raises. They are gonum's, so
// that code moved between the two packages fails alike.
const (
	mLT0     = "blas: m < 0"
	nLT0     = "blas: n < 0"
	kLT0     = "blas: k < 0"
	badLdA   = "blas: bad leading dimension of A"
	badLdB   = "blas: bad leading dimension of B"
	badLdC   = "blas: bad leading dimension of C"
	shortA   = "blas: insufficient length of a"
	shortB   = "blas: insufficient length of b"
	shortC   = "blas: insufficient length of c"
	shortX   = "blas: insufficient length of x"
	shortY   = "blas: insufficient length of y"
	badUplo  = "blas: illegal triangle"
	badTrans = "blas: illegal transpose"
	badDiag  = "blas: illegal diagonal"
	badSide  = "blas: illegal side"
)

// checkMatrix panics if a row-major matrix of the given shape does not fit in
// length elements with leading dimension ld.
func checkMatrix(rows, cols, ld, length int, badLd, short string) {
	if ld < max(1, cols) {
		panic(badLd)
	}
	if rows > 0 && cols > 0 && length < (rows-1)*ld+cols {
		panic(short)
	}
}

// checkGemm panics if the arguments of a matrix product do not describe
// matrices that fit in their slices.
func checkGemm(transA, transB bool, m, n, k, lenA, lda, lenB, ldb, lenC, ldc int) {
	switch {
	case m < 0:
		panic(mLT0)
	case n < 0:
		panic(nLT0)
	case k < 0:
		panic(kLT0)
	}
	if transA {
		checkMatrix(k, m, lda, lenA, badLdA, shortA)
	} else {
		checkMatrix(m, k, lda, lenA, badLdA, shortA)
	}
	if transB {
		checkMatrix(n, k, ldb, lenB, badLdB, shortB)
	} else {
		checkMatrix(k, n, ldb, lenB, badLdB, shortB)
	}
	checkMatrix(m, n, ldc, lenC, badLdC, shortC)
}

// checkSyrk panics if the arguments of a symmetric rank-k update do not
// describe matrices that fit in their slices.
func checkSyrk(trans bool, n, k, lenA, lda, lenC, ldc int) {
	switch {
	case n < 0:
		panic(nLT0)
	case k < 0:
		panic(kLT0)
	}
	if trans {
		checkMatrix(k, n, lda, lenA, badLdA, shortA)
	} else {
		checkMatrix(n, k, lda, lenA, badLdA, shortA)
	}
	checkMatrix(n, n, ldc, lenC, badLdC, shortC)
}
