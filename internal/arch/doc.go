// Package arch reads config.json: which model family a checkpoint belongs to, its geometry, its rotary embedding and
// the names of its tensors. One file describes one family, as data; what a family cannot say, it refuses by name.
//
// The families of sources are listed in [Sources]; the one family of targets, dense DeepSeek-V3, is [MLA].
package arch
