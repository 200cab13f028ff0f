"""The experiments `invariance-constrained` and `invariance-constrained-crystals`."""
