package svd

import "math"

// secularRoot finds the i-th root lambda of the secular equation
//
//	f(lambda) = 1/rho + sum_j z_j^2 / (d_j - lambda) = 0,   rho > 0, d ascending,
//
// which lies between d_i and d_{i+1}, or for the last i between d_i and d_i +
// rho |z|^2. It returns lambda = d_origin + mu, where d_origin is the pole
// nearer to the root, and writes d_j - lambda into delta with small relative
// error. Each step interpolates the sums over the poles on either side by one
// pole each ("the middle way", R.-C. Li, Solving secular equations stably and
// efficiently, LAPACK working note 89, 1993) and falls back to bisection when
// it leaves the bracket.
func secularRoot(i int, d, z []float64, rho float64, delta []float64) (lambda float64, ok bool) {
	const maxSteps = 200
	n := len(d)
	if n == 1 {
		mu := rho * z[0] * z[0]
		delta[0] = -mu
		return d[0] + mu, true
	}
	last := i == n-1
	left := i // poles 0 .. left are on the left of the two that are interpolated
	if last {
		left = n - 2
	}

	// The origin and the bracket lo < mu < hi.
	var lo, hi float64
	origin := i
	if last {
		var zz float64
		for _, v := range z {
			zz += v * v
		}
		hi = rho * zz * (1 + 8*epsilon)
	} else {
		half := (d[i+1] - d[i]) / 2
		f := 1 / rho
		for j, v := range z {
			f += v * v / ((d[j] - d[i]) - half)
		}
		if f >= 0 {
			hi = half
		} else {
			origin, lo = i+1, -half
		}
	}
	for j := range d {
		delta[j] = d[j] - d[origin] // the poles as seen from the origin; shifted by mu at the end
	}
	dl, dr := delta[left], delta[left+1]

	mu := secularGuess(delta, z, rho, left, lo, hi)
	if !(mu > lo && mu < hi) {
		mu = lo + (hi-lo)/2
	}
	for range maxSteps {
		// Partial sums towards the poles, with a bound on their rounding.
		psi, dpsi, bound := 0.0, 0.0, 0.0
		for j := 0; j <= left; j++ {
			t := z[j] / (delta[j] - mu)
			psi += z[j] * t
			dpsi += t * t
			bound += math.Abs(psi)
		}
		phi, dphi := 0.0, 0.0
		for j := n - 1; j > left; j-- {
			t := z[j] / (delta[j] - mu)
			phi += z[j] * t
			dphi += t * t
			bound += math.Abs(phi)
		}
		f := 1/rho + (psi + phi)
		bound = epsilon * (bound + 8*(math.Abs(psi)+math.Abs(phi)) + 1/rho + math.Abs(mu)*(dpsi+dphi))
		if math.Abs(f) <= bound {
			return shiftPoles(delta, d[origin], mu), true
		}
		if f < 0 {
			lo = mu
		} else {
			hi = mu
		}
		if hi-lo <= epsilon*math.Max(math.Abs(lo), math.Abs(hi)) {
			return shiftPoles(delta, d[origin], mu), true
		}

		// c + s/(dl - mu - eta) + t/(dr - mu - eta) = 0 with the values and
		// slopes of psi and phi.
		pl, pr := dl-mu, dr-mu
		c := f - pl*dpsi - pr*dphi
		a := (pl+pr)*f - pl*pr*(dpsi+dphi)
		b := pl * pr * f
		next := pickRoot(c, a, b, mu, lo, hi)
		if !(next > lo && next < hi) {
			next = bisect(lo, hi)
		}
		if next == mu {
			return shiftPoles(delta, d[origin], mu), true
		}
		mu = next
	}
	return 0, false
}

// shiftPoles turns d_j - d_origin into d_j - lambda.
func shiftPoles(delta []float64, origin, mu float64) float64 {
	for j := range delta {
		delta[j] -= mu
	}
	return origin + mu
}

// secularGuess solves the secular equation with all poles but the nearest two
// frozen at the middle of the bracket.
func secularGuess(delta, z []float64, rho float64, left int, lo, hi float64) float64 {
	mid := lo + (hi-lo)/2
	c := 1 / rho
	for j := range delta {
		if j != left && j != left+1 {
			c += z[j] * z[j] / (delta[j] - mid)
		}
	}
	pl, pr := delta[left], delta[left+1]
	zl, zr := z[left]*z[left], z[left+1]*z[left+1]
	// c (pl-mu)(pr-mu) + zl (pr-mu) + zr (pl-mu) = 0
	return pickRoot(c, c*(pl+pr)+zl+zr, c*pl*pr+zl*pr+zr*pl, 0, lo, hi)
}

// pickRoot returns mu + eta for the root eta of c eta^2 - a eta + b = 0 that
// falls between lo and hi, or NaN.
func pickRoot(c, a, b, mu, lo, hi float64) float64 {
	disc := math.Sqrt(math.Max(0, a*a-4*b*c))
	q := (a + math.Copysign(disc, a)) / 2
	for _, eta := range [2]float64{b / q, q / c} {
		if x := mu + eta; x > lo && x < hi {
			return x
		}
	}
	return math.NaN()
}

// bisect returns a point inside the bracket: the geometric mean when both ends
// are on one side of zero and far apart, since mu may lie many orders of
// magnitude nearer to the pole.
func bisect(lo, hi float64) float64 {
	switch {
	case lo > 0 && hi > 4*lo:
		return math.Sqrt(lo) * math.Sqrt(hi)
	case hi < 0 && lo < 4*hi:
		return -math.Sqrt(-lo) * math.Sqrt(-hi)
	case lo == 0:
		return hi / 64
	case hi == 0:
		return lo / 64
	}
	return lo + (hi-lo)/2
}
