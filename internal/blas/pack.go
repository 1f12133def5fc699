package blas

import "unsafe"

// An operand is a matrix seen as the products see it: as many lines (rows of
// op(A), columns of op(B)) of as many elements as the inner dimension is deep.
type operand[S any] struct {
	data []S
	ld   int
	deep bool // a line is contiguous in memory, rather than a step across the lines
}

// from returns the address of element p of line i.
func (o operand[S]) from(i, p int) *S {
	if o.deep {
		return &o.data[i*o.ld+p]
	}
	return &o.data[p*o.ld+i]
}

// copySteps is how many steps across the lines are packed for all panels of a
// task before the next ones: few enough that their pages and cache lines stay at
// hand while neighbouring panels take their shares of them.
const copySteps = 32

// roundUp returns the least multiple of m that is not below n.
func roundUp(n, m int) int { return (n + m - 1) / m * m }

// depth returns the number of steps that a packed panel of k steps occupies.
func (pk *packer[T, S]) depth(k int) int { return roundUp(k, pk.columns) }

// panels packs panels of k steps from step p0 of the lines of o below limit.
// Panel j holds lines start(j) to start(j+1), step by step, at offset
// (start(j)-start(j0))*depth(k) of dst. Lines beyond the limit are zero.
func (pk *packer[T, S]) panels(dst []T, o operand[S], limit, j0, j1 int, start func(j int) int, p0, k int) {
	depth := pk.depth(k)
	if o.deep {
		for j := j0; j < j1; j++ {
			i := start(j)
			pk.pack(dst[(i-start(j0))*depth:], o, i, min(start(j+1), limit)-i, start(j+1)-i, p0, k)
		}
		return
	}
	for q := 0; q < k; q += copySteps {
		for j := j0; j < j1; j++ {
			i := start(j)
			width := start(j+1) - i
			pk.pack(dst[(i-start(j0))*depth+q*width:], o, i, min(start(j+1), limit)-i, width, p0+q, min(copySteps, k-q))
		}
	}
}

// pack packs k steps from step p0 of n lines from line i as a panel of the given
// width. It may write depth(k) steps if the lines are deep. Where the lines are
// no whole number of groups or units, the last of these starts early and
// overlaps the one before.
func (pk *packer[T, S]) pack(dst []T, o operand[S], i, n, width, p0, k int) {
	var s S
	var t T
	srcStride, dstStride := o.ld*int(unsafe.Sizeof(s)), width*int(unsafe.Sizeof(t))
	if !o.deep {
		whole := n / pk.unit
		if whole > 0 {
			pk.copy(k, o.from(i, p0), srcStride, &dst[0], dstStride, whole)
		}
		if whole > 0 && n == width && n%pk.unit > 0 {
			last := n - pk.unit
			pk.copy(k, o.from(i+last, p0), srcStride, &dst[last], dstStride, 1)
			return
		}
		if done := whole * pk.unit; done < width {
			edge := make([]S, roundUp(width-done, pk.unit))
			row := make([]T, len(edge))
			for p := range k {
				if done < n {
					copy(edge, o.data[(p0+p)*o.ld+i+done:(p0+p)*o.ld+i+n])
				}
				pk.copy(1, &edge[0], 0, &row[0], 0, len(edge)/pk.unit)
				copy(dst[p*width+done:(p+1)*width], row)
			}
		}
		return
	}
	if src, ok := any(o.data).([]T); ok && width < pk.group {
		// A low panel of the last rows of A.
		for l := range width {
			if l >= n {
				for p := range k {
					dst[p*width+l] = 0
				}
				continue
			}
			for p, v := range src[(i+l)*o.ld+p0 : (i+l)*o.ld+p0+k] {
				dst[p*width+l] = v
			}
		}
		return
	}
	blocks, rest := k/pk.columns, k%pk.columns
	for g := 0; g < width; g += pk.group {
		if g > 0 && n == width {
			g = min(g, width-pk.group)
		}
		lines := min(n-g, pk.group)
		first := 0 // block that has to go through the zero-padded edge
		if lines == pk.group && g+pk.group <= width {
			if blocks > 0 {
				pk.transpose(blocks, o.from(i+g, p0), srcStride, &dst[g], dstStride)
			}
			if rest == 0 {
				continue
			}
			first = blocks
		}
		edge := make([]S, pk.group*pk.columns)
		cols := make([]T, pk.group*pk.columns)
		wide := min(pk.group, width-g)
		for b := first; b*pk.columns < k; b++ {
			at := b * pk.columns
			clear(edge)
			for l := range lines {
				line := o.data[(i+g+l)*o.ld+p0:]
				copy(edge[l*pk.columns:(l+1)*pk.columns], line[at:min(k, at+pk.columns)])
			}
			pk.transpose(1, &edge[0], pk.columns*int(unsafe.Sizeof(s)), &cols[0], pk.group*int(unsafe.Sizeof(t)))
			for p := range pk.columns {
				copy(dst[(at+p)*width+g:(at+p)*width+g+wide], cols[p*pk.group:])
			}
		}
	}
}
