"""Kernels: ways to compute attention and linear layers that give the same results up to rounding."""
