"""Unrolls, meta-gradients and the outer loop."""
