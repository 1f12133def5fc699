// Command driver is this module's side of bench/compare.py, which starts it and asks for one job after another, so that
// both sides are measured in turn in one run.
//
// Each line of the standard input is a job, and a line of the standard output its answer:
//
//	sgemm|dgemm|bgemm nn|nt|tn|tt M N K REPEATS    seconds of each repeat; bgemm has a bfloat16 B
//	ssyrk|dsyrk|asyrk n|t N K REPEATS              seconds of each repeat; asyrk is SsyrkAcc
//	truncate FILE ROWS COLS RANK TOL               seconds, discarded and total energy, blocks of the iteration
//	eigsym FILE N N                                seconds
//	forward DIR FILE SEQUENCES LENGTH              seconds to the last residual stream
//	logits DIR FILE SEQUENCES LENGTH               seconds to the logits, and the mean square of the first token's
//	sample DIR FILE SEQUENCES LENGTH SEED          seconds; FILE receives the ids
//
// FILE holds float64, or int32 for ids, little-endian. Seconds are of the clock or, with -cpu, of the processor (on Unix), which
// is what can be measured on a busy machine with GOMAXPROCS=1. The first line of the output names the kernels.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// clock is the time that jobs are measured in.
type clock func() time.Duration

// since is the seconds from an earlier time.
func (c clock) since(start time.Duration) float64 { return (c() - start).Seconds() }

func main() {
	cpu := flag.Bool("cpu", false, "measure processor time")
	flag.Parse()
	now := clock(func() time.Duration { return time.Duration(time.Now().UnixNano()) })
	if *cpu {
		if processorTime == nil {
			fmt.Fprintln(os.Stderr, "driver: -cpu: no processor time is known on this system")
			os.Exit(1)
		}
		now = processorTime
	}
	e := blas.New(runtime.GOMAXPROCS(0))
	fmt.Printf("%s kernels, %d threads\n", blas.Features(), e.Threads())
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		answer, err := run(e, now, strings.Fields(in.Text()))
		if err != nil {
			fmt.Fprintf(os.Stderr, "driver: %q: %v\n", in.Text(), err)
			os.Exit(1)
		}
		fmt.Println(answer)
	}
}

func run(e *blas.Engine, now clock, job []string) (string, error) {
	if len(job) == 0 {
		return "", fmt.Errorf("no job")
	}
	switch kind, args := job[0], job[1:]; kind {
	case "sgemm", "dgemm", "bgemm", "ssyrk", "dsyrk", "asyrk":
		return timeProduct(e, now, kind, args)
	case "truncate", "eigsym":
		return timeFactor(e, now, kind, args)
	case "forward", "logits", "sample":
		return timeNetwork(e, now, kind, args)
	}
	return "", fmt.Errorf("no such job")
}

// scan reads the arguments of a job.
func scan(args []string, to ...any) error {
	if len(args) != len(to) {
		return fmt.Errorf("%d arguments, want %d", len(args), len(to))
	}
	_, err := fmt.Sscan(strings.Join(args, " "), to...)
	return err
}
