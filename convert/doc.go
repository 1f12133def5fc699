// Package convert turns a source checkpoint into an MLA checkpoint on disk.
//
// [NewPlan] reads headers only. It makes the ledger of every source tensor, which is converted, copied or dropped with a
// reason, and the layout of the output, or it lists all that is wrong with the source at once. [Run] carries a plan out:
// layers in parallel, each written, journaled and forgotten, in a staging folder that becomes the output in one rename.
// The output depends on the source and the [Recipe] alone, not on the number of jobs nor on how often it was resumed.
package convert
