// Package cmd is the command line: flags, exit codes, and what is printed. One file holds one command, with a function
// runX(ctx, options, streams) that tests call as the command does.
package cmd
