package blas

// panels cuts a dimension of a matrix into panels: all of the largest width,
// except the last or the last two.
type panels struct {
	count int
	full  int // panels of width wide
	wide  int
	rest  int // width of the panels after them
}

// split cuts n columns into panels of up to vectors vectors of lanes elements.
// Two panels of two vectors are better than one of three and one of one, which
// the loads of A would slow down.
func split(n, lanes, vectors int) panels {
	total := (n + lanes - 1) / lanes
	p := panels{full: total / vectors, wide: vectors * lanes, rest: total % vectors * lanes}
	switch {
	case p.rest == 0:
		p.count = p.full
	case vectors == 3 && total%vectors == 1 && p.full > 0:
		p.full--
		p.count = p.full + 2
		p.rest = 2 * lanes
	default:
		p.count = p.full + 1
	}
	return p
}

// start returns the first column of panel j, or one past the last if j == count.
func (p panels) start(j int) int {
	if j <= p.full {
		return j * p.wide
	}
	return p.full*p.wide + (j-p.full)*p.rest
}

// at returns the panel that holds column i, or the number of panels that lie
// wholly below it.
func (p panels) at(i int) int {
	if i < p.full*p.wide || p.rest == 0 {
		return i / p.wide
	}
	return p.full + (i-p.full*p.wide)/p.rest
}

// down cuts m rows into panels of the largest height and one of the least height
// that takes the remaining rows.
func (kn *kernels[T, S]) down(m int) panels {
	h := kn.heights[0]
	p := panels{count: m / h, full: m / h, wide: h}
	if r := m % h; r > 0 {
		p.count++
		for _, v := range kn.heights {
			if v >= r {
				p.rest = v
			}
		}
	}
	return p
}

// heightIndex returns the index of a panel height in heights.
func (kn *kernels[T, S]) heightIndex(height int) int {
	for i, h := range kn.heights {
		if h == height {
			return i
		}
	}
	panic("blas: no kernel of this height")
}
