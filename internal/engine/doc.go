// Package engine says what inference engines compute of the target's layout (arch.MLA): one table entry an engine, one file
// an entry. Everything that depends on an engine asks here: the dialect that convert writes, what it refuses, what inspect
// says of an existing output, and the forward pass of verify.
//
// The entries are facts about the engines' sources. Where an engine is found to do something else, it is right, and its
// entry is to be changed.
package engine
