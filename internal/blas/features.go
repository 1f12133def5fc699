package blas

// Features names the kernels in use.
func Features() string { return "portable" }
