// Package ui draws progress on standard error and reads and writes sizes as people do.
package ui
