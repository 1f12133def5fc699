package ui

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
)

var sizePattern = regexp.MustCompile(`^([0-9]{1,12}(?:\.[0-9]{1,6})?)(B|[KMGT]B|[KMGT]iB)$`)

var units = map[string]float64{
	"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}

// ParseSize reads a number of bytes with its unit, such as 5GB, 1.5GB or 512MiB. KB to TB are powers of 1000 and KiB to
// TiB powers of 1024. The unit is required, because a bare number could mean either bytes or gigabytes.
func ParseSize(s string) (int64, error) {
	m := sizePattern.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("size %q: expected a number and its unit, such as 5GB or 512MiB", s)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, fmt.Errorf("size %q: %w", s, err)
	}
	bytes := math.Floor(n * units[m[2]])
	if bytes < 1 || bytes > 1<<60 {
		return 0, fmt.Errorf("size %q: expected from 1B to 2^60 bytes", s)
	}
	return int64(bytes), nil
}

// FormatSize writes bytes with three significant digits and a unit of powers of 1000, such as 538 MB.
func FormatSize(n int64) string {
	x, unit := float64(n), "B"
	for _, next := range []string{"KB", "MB", "GB", "TB", "PB"} {
		if math.Abs(x) < 999.5 {
			break
		}
		x, unit = x/1000, next
	}
	digits := 0
	switch {
	case unit == "B":
	case math.Abs(x) < 9.995:
		digits = 2
	case math.Abs(x) < 99.95:
		digits = 1
	}
	return strconv.FormatFloat(x, 'f', digits, 64) + " " + unit
}

// ExactSize writes bytes without rounding, in the largest unit that divides them, as [ParseSize] reads them.
func ExactSize(n int64) string {
	unit := "B"
	for _, next := range []string{"KB", "MB", "GB", "TB"} {
		if n == 0 || n%1000 != 0 {
			break
		}
		n, unit = n/1000, next
	}
	return strconv.FormatInt(n, 10) + unit
}
