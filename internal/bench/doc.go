// Package bench measures what this machine does in a second of the kinds of work that a conversion consists of, and turns
// counted work into expected times.
//
// A [Kind] of work has one rate, taken by running the kernel that does it in the program on data of a typical size. A
// [Work] is how much of each kind something takes, counted from shapes (see convert.Plan.Phases), and [Rates.Seconds] their
// quotients' sum: an estimate, since kernels that run side by side share caches and memory.
package bench
