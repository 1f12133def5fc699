//go:build !unix

package main

// processorTime is nil: -cpu is for Unix.
var processorTime clock
