package blas

import "unsafe"

// Sizes of the blocks that a product is cut into. The innermost loop multiplies
// one panel of A (as many rows as a tile) with one panel of B (as many columns)
// over a block of the inner dimension; see product.run for the loops around it.
const (
	// sharedBytes is the size of the block of A that all goroutines share.
	sharedBytes = 8 << 20
	// sharedRows is the number of rows in it, unless A has fewer. B is packed
	// anew for each such block.
	sharedRows = 2048
	// serialWork is the number of multiplications below which a product is not
	// worth a second goroutine.
	serialWork = 1 << 18
	// serialPack is the number of elements of A below which one goroutine packs.
	serialPack = 1 << 15
	// dotMaxRows is the number of rows of A up to which B, if its columns are
	// contiguous, is multiplied where it lies.
	dotMaxRows = 16
	// directMaxRows is the same for B with contiguous rows. If B is larger than
	// directBytes, only directSteps rows of it are run through at a time: as many
	// streams as the hardware prefetches.
	directMaxRows = 8
	directSteps   = 8
	directBytes   = 1 << 20
	// unpackedCols is the number of columns of C up to which contiguous rows of A
	// are multiplied where they lie. Packing them is reading and writing them once
	// more, for which later panels of B find them in fewer pages and cache lines.
	unpackedCols = 1536
	// blockMultiple divides the length of all blocks of the inner dimension but
	// the last: what the packers of all extensions transpose at a time.
	blockMultiple = 8
)

// innerBlock is the number of steps of the inner dimension that are summed in
// registers before they are added to C. It is the same for all extensions of a
// type, so that all compute the same bits.
func innerBlock[T float]() int {
	var t T
	if unsafe.Sizeof(t) == 4 {
		return 640
	}
	return 384
}

// dotBlock is the number of lanes of an inner product.
func dotBlock[T float]() int {
	var t T
	return 64 / int(unsafe.Sizeof(t))
}

// part is what is wanted of a square C.
type part int

const (
	whole part = iota
	upper
	lower
)

// A product is one call of a matrix product or a symmetric update.
type product[T float, S any] struct {
	engine      *Engine
	kn          *kernels[T, S]
	pool        *pool[T]
	m, n, k     int
	inner       int // longest block of the inner dimension
	alpha, beta T
	a           operand[T]
	b           operand[S]
	c           []T
	ldc         int
	// inPlace, if set, is the data of B, to be multiplied without packing.
	inPlace []T
	// part restricts the work to tiles that touch one triangle of C. The other
	// triangle's elements of these tiles are written too, unless exact is set.
	part  part
	exact bool
	// sum, if set, takes accScale times the product of each block of the inner
	// dimension, added in float64, instead of c.
	sum       []float64
	accScale  float64
	addScaled func(blocks int, alpha float64, src *float32, dst *float64)
}

// run computes the product. The loops, from the outside in:
//
//	rows of A, sharedRows at a time, and steps of the inner dimension, as many
//	as fit in sharedBytes: packed once, in panels, by all goroutines, unless they
//	are read where they lie;
//	  tasks, in parallel: some columns of B (and, when there are few, some rows);
//	    blocks of the inner dimension: B packed, in panels, by the task;
//	      panels of A; panels of B: a tile of C.
//
// How rows and columns are dealt to tasks depends on the number of goroutines;
// the order in which the products of one element of C are added does not.
func (g *product[T, S]) run() {
	if g.m == 0 || g.n == 0 {
		return
	}
	if g.k == 0 || g.alpha == 0 {
		g.scale()
		return
	}
	g.count()
	if g.m <= dotMaxRows && g.a.deep && g.b.deep && g.part == whole {
		g.runDot()
		return
	}
	kn := g.kn
	across := split(g.n, kn.lanes, kn.vectors)
	if b, ok := any(g.b.data).([]T); ok && !g.b.deep && g.m <= directMaxRows && g.part == whole {
		g.inPlace = b
		if g.n*g.k*int(unsafe.Sizeof(g.alpha)) > directBytes {
			g.inner = directSteps
		}
	}
	blocks := (g.k + g.inner - 1) / g.inner
	block := roundUp((g.k+blocks-1)/blocks, blockMultiple)
	blocks = (g.k + block - 1) / block

	rows := min(g.m, sharedRows)
	perShare := max(1, sharedBytes/(roundUp(rows, kn.heights[0])*block*int(unsafe.Sizeof(g.alpha))))
	workers := g.engine.workers(g.work())
	for m0 := 0; m0 < g.m; m0 += rows {
		m1 := min(g.m, m0+rows)
		for b0 := 0; b0 < blocks; b0 += perShare {
			g.share(across, m0, m1, b0, min(blocks, b0+perShare), block, workers)
		}
	}
}

// work returns the number of multiplications.
func (g *product[T, S]) work() int {
	w := g.m * g.n * g.k
	if g.part != whole {
		w /= 2
	}
	return w
}

// share adds the product of rows m0 to m1 of A over blocks b0 to b1 of the inner
// dimension.
func (g *product[T, S]) share(across panels, m0, m1, b0, b1, block, workers int) {
	kn := g.kn
	down := kn.down(m1 - m0)
	unpacked := 0 // panels of A
	if kn.direct != nil && g.a.deep && g.n <= unpackedCols {
		unpacked = down.full
	}
	depth := kn.packA.depth(block)
	size := (down.start(down.count) - down.start(unpacked)) * depth
	scratch := g.pool.get(size * (b1 - b0))
	defer g.pool.put(scratch)
	shared := scratch.data

	// Pack A: block after block, panel after panel.
	const group = 8
	groups := (down.count - unpacked + group - 1) / group
	packers := workers
	if size*(b1-b0) < serialPack {
		packers = 1
	}
	g.engine.run(packers, groups*(b1-b0), func(i int) {
		b, first := b0+i/groups, unpacked+i%groups*group
		p0, p1 := b*block, min(g.k, (b+1)*block)
		kn.packA.panels(shared[(b-b0)*size+(down.start(first)-down.start(unpacked))*kn.packA.depth(p1-p0):],
			g.a.shift(m0), m1-m0, first, min(down.count, first+group), down.start, p0, p1-p0)
	})

	j0, j1 := 0, across.count
	switch g.part {
	case upper:
		j0 = across.at(m0)
	case lower:
		j1 = across.at(m1-1) + 1
	}
	perTask := max(1, kn.taskBytes/(kn.lanes*kn.vectors*block*int(unsafe.Sizeof(g.alpha))))
	cols, rows := deal(j1-j0, down.count, perTask, kn.heights[0], workers)
	g.engine.run(workers, cols*rows, func(i int) {
		// Neighbouring tasks take the same rows: with few rows there is one row of tasks.
		ci, ri := i%cols, i/cols
		if g.part == upper {
			ci = cols - 1 - ci // the last columns reach furthest down: the longest tasks come first
		}
		task := task[T, S]{
			product: g, across: across, down: down, m0: m0, unpacked: unpacked,
			j0: j0 + (j1-j0)*ci/cols, j1: j0 + (j1-j0)*(ci+1)/cols,
			i0: down.count * ri / rows, i1: down.count * (ri + 1) / rows,
		}
		if task.trim(); task.j0 < task.j1 {
			task.run(shared, size, b0, b1, block)
		}
	})
}

// shift drops the first n lines.
func (o operand[S]) shift(n int) operand[S] {
	if o.deep {
		o.data = o.data[n*o.ld:]
	} else {
		o.data = o.data[n:]
	}
	return o
}

// deal returns into how many ranges to cut the panels of B and those of A.
func deal(across, down, perTask, height, workers int) (cols, rows int) {
	cols = (across + perTask - 1) / perTask
	if workers == 1 {
		return cols, 1
	}
	// Whole rounds of tasks, and at least two, so that no goroutine idles long at
	// the end. Up to eight even out what the machine does besides, as long as the
	// rows of a task are so many that packing its block of B takes little of it.
	const least, most, enoughRows = 2, 8, 512
	cols = min(across, roundUp(max(cols, least*workers), workers))
	rows = 1
	for rows*2 <= down && (cols*rows < least*workers || cols*rows < most*workers && down*height >= 2*rows*enoughRows) {
		rows *= 2
	}
	return cols, rows
}

// A task is the part of a product that one goroutine computes at a time.
type task[T float, S any] struct {
	*product[T, S]
	across, down   panels
	m0             int // row of A that the panels of A start from
	unpacked       int // panels of A that are read where they lie
	j0, j1, i0, i1 int // panels of B and A
}

// trim leaves out the panels of B that only touch the triangle of C that is not wanted, so that they are not packed.
func (t *task[T, S]) trim() {
	switch t.part {
	case upper:
		t.j0 = max(t.j0, t.across.at(t.m0+t.down.start(t.i0)))
	case lower:
		t.j1 = min(t.j1, t.across.at(min(t.m, t.m0+t.down.start(t.i1))-1)+1)
	}
}

func (t *task[T, S]) run(shared []T, perBlock, b0, b1, block int) {
	kn := t.kn
	size := int(unsafe.Sizeof(t.alpha))
	start := t.across.start(t.j0)
	lines := t.across.start(t.j1) - start
	tile := kn.heights[0] * kn.lanes * kn.vectors
	scratch := t.pool.get(tile + lines*kn.packB.depth(block))
	defer t.pool.put(scratch)
	edge, packed := scratch.data[:tile], scratch.data[tile:]

	for b := b0; b < b1; b++ {
		p0, p1 := b*block, min(t.k, (b+1)*block)
		k := p1 - p0
		packedFrom := t.j0
		if t.inPlace != nil {
			// Only a panel that reaches beyond the last column needs packing.
			packedFrom = min(t.j1, t.across.at(t.n))
		}
		kn.packB.panels(packed, t.b, t.n, packedFrom, t.j1, t.across.start, p0, k)
		depthA, depthB := kn.packA.depth(k), kn.packB.depth(k)
		beta := t.beta
		if b > 0 {
			beta = 1
		}
		for i := t.i0; i < t.i1; i++ {
			first, height := t.down.start(i), t.down.start(i+1)-t.down.start(i)
			row := t.m0 + first
			var a *T
			aStride := 0
			micro := kn.direct
			if i < t.unpacked {
				a, aStride = &t.a.data[row*t.a.ld+p0], t.a.ld*size
			} else {
				a = &shared[(b-b0)*perBlock+(first-t.down.start(t.unpacked))*depthA]
				micro = kn.micro[kn.heightIndex(height)]
			}
			for j := t.j0; j < t.j1; {
				col := t.across.start(j)
				width := t.across.start(j+1) - col
				if t.part == upper && col+width <= row || t.part == lower && col >= row+height {
					j++
					continue
				}
				panel, stride, next := (*T)(nil), width, width*depthB
				if j < packedFrom {
					panel, stride, next = &t.inPlace[p0*t.b.ld+col], t.b.ld, width
				} else {
					panel = &packed[(col-t.across.start(packedFrom))*depthB]
				}
				kernel := micro[width/kn.lanes-1]
				if n := t.plain(j, row, height, packedFrom); n > 0 {
					kernel(k, a, aStride, panel, stride*size, next*size, &t.c[row*t.ldc+col], t.ldc*size, n, t.alpha, beta)
					j += n
					continue
				}
				t.edge(height, width, row, col, func(c *T, cStride int, alpha, beta T) {
					kernel(k, a, aStride, panel, stride*size, 0, c, cStride*size, 1, alpha, beta)
				}, beta, edge)
				j++
			}
		}
	}
}

// plain returns how many tiles from panel j of B on, in the rows of a panel of A,
// are computed where they lie in C, with panels of B that are equally far apart:
// tiles that lie wholly in C, and in the part of it that may be written.
func (t *task[T, S]) plain(j, row, height, packedFrom int) int {
	if t.sum != nil || row+height > t.m {
		return 0
	}
	end := min(t.j1, t.across.at(t.n))
	if j < t.across.full {
		end = min(end, t.across.full)
	}
	if j < packedFrom {
		end = min(end, packedFrom)
	}
	switch {
	case t.part == upper && t.exact && t.across.start(j) < row+height-1:
		return 0
	case t.part == lower && t.exact:
		end = min(end, t.across.at(row+1))
	case t.part == lower:
		end = min(end, t.across.at(row+height-1)+1)
	}
	return max(0, end-j)
}

// edge adds a block of the inner dimension to the tile of C at row and col that
// reaches beyond C or the part of it that may be written, or whose sum is wanted in
// float64: micro computes it in scratch.
func (t *task[T, S]) edge(height, width, row, col int, micro func(c *T, cStride int, alpha, beta T), beta T, scratch []T) {
	rows, cols := min(height, t.m-row), min(width, t.n-col)
	if t.sum != nil {
		micro(&scratch[0], width, 1, 0)
		t.addTile(scratch, width, row, col, rows, cols)
		return
	}
	if beta != 0 {
		for r := range rows {
			copy(scratch[r*width:r*width+cols], t.c[(row+r)*t.ldc+col:])
		}
	}
	micro(&scratch[0], width, t.alpha, beta)
	for r := range rows {
		first, last := 0, cols
		if t.exact && t.part == upper {
			first = min(cols, max(0, row+r-col))
		} else if t.exact && t.part == lower {
			last = max(0, min(cols, row+r-col+1))
		}
		line := t.c[(row+r)*t.ldc+col:]
		copy(line[first:last], scratch[r*width+first:])
	}
}

// addTile adds a tile in scratch to the float64 sum.
func (t *task[T, S]) addTile(scratch []T, width, row, col, rows, cols int) {
	tile := any(scratch).([]float32)
	for r := range rows {
		src := tile[r*width : r*width+cols]
		dst := t.sum[(row+r)*t.ldc+col : (row+r)*t.ldc+col+cols]
		blocks := cols / 8
		if blocks > 0 {
			t.addScaled(blocks, t.accScale, &src[0], &dst[0])
		}
		if blocks*8 < cols {
			// The same kernel, so that a column's result does not depend on where it lies.
			var s [8]float32
			var d [8]float64
			copy(s[:], src[blocks*8:])
			copy(d[:], dst[blocks*8:])
			t.addScaled(1, t.accScale, &s[0], &d[0])
			copy(dst[blocks*8:], d[:])
		}
	}
}

// scale computes C = beta*C.
func (g *product[T, S]) scale() {
	if g.sum != nil || g.beta == 1 {
		return
	}
	for i := range g.m {
		first, last := 0, g.n
		if g.exact && g.part == upper {
			first = i
		} else if g.exact && g.part == lower {
			last = i + 1
		}
		row := g.c[i*g.ldc+first : i*g.ldc+last]
		if g.beta == 0 {
			clear(row)
			continue
		}
		for j := range row {
			row[j] *= g.beta
		}
	}
}
