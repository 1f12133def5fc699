// Package mla turns one layer of grouped-query attention into Multi-head Latent Attention (MLA) by factorization. It
// holds the mathematics and does no input or output.
//
// Notation: x in R^d is the attention input (after the input norm); H query heads share G key/value heads, head h uses
// g(h); a head is 2F wide. A rotated pair of a query or key is written as one complex number, q_{h,f} and k_{g,f}, and
//
//	score_h(m, n) = Re sum_f q_{h,f}(m) conj(k_{g(h),f}(n)) e^{i theta_f (m-n)} / sqrt(2F).
//
// MLA (DeepSeek-V2, arXiv:2405.04434, section 2.1) caches for each token a latent c = W_DKV x in R^r and one rotary key
// of S complex numbers kappa_s that all heads share, with the engine's frequencies omega_s:
//
//	score'_h(m, n) = [ Re sum_s q'_{h,s} conj(kappa_s) e^{i omega_s (m-n)} + <q_h, W_UK,h c> ] / sqrt(2F),   v_h = W_UV,h c.
//
// The conversion of a layer is
//
//	source -> Slots: what the shared rotary key carries (complex PCA across the KV heads)
//	       -> position-free keys: what the slots leave, at its expected phase
//	       -> joint weighted truncated SVD of those keys and the values: W_DKV, W_UK, W_UV
//
// Multiplying every pair of one frequency by a complex number commutes with its rotation. So for each frequency any
// unitary in U(G) across the KV heads is free, and the principal components are those of a Hermitian covariance.
package mla
