package convert

import (
	"context"
	"errors"
	"sync"
)

// inParallel calls f for 0 to n-1, up to jobs at once, until one fails or the context is done. Its error is that of the
// smallest index which failed by itself, not by the cancellation that followed.
func inParallel(ctx context.Context, jobs, n int, f func(ctx context.Context, i int) error) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	queue := make(chan int)
	failures := make([]error, n)
	var wg sync.WaitGroup
	for range jobs {
		wg.Go(func() {
			for i := range queue {
				// What waited in the queue while another failed is not begun.
				if failures[i] = inner.Err(); failures[i] == nil {
					failures[i] = f(inner, i)
				}
				if failures[i] != nil {
					cancel()
				}
			}
		})
	}
	for i := range n {
		if inner.Err() != nil {
			break
		}
		queue <- i
	}
	close(queue)
	wg.Wait()
	for _, err := range failures {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return ctx.Err()
}
