// Package hugepage gives memory outside the heap, in huge pages: the system
// maps it with one fault where small pages take 512, the processor finds it
// with one entry of its TLB, and a device reads it in one piece.
package hugepage
