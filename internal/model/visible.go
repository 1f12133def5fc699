package model

// VisibleKeys returns how many keys a query of a sequence of n tokens meets on average in the products of attention, which
// take blocks of queries: what the work of attention is counted from.
func VisibleKeys(n int) float64 {
	sum := 0
	for lo := 0; lo < n; lo += queryBlock {
		hi := min(n, lo+queryBlock)
		sum += (hi - lo) * hi
	}
	return float64(sum) / float64(n)
}
