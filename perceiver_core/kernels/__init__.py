"""Kernels: ways to compute attention and linear layers that give the same results up to rounding.

- :mod:`~perceiver_core.kernels.sdpa`: scaled dot-product attention by the fastest kernel for its shapes.
- :mod:`~perceiver_core.kernels.plain`: the formula, with all scores at once.
- :mod:`~perceiver_core.kernels.chunked`: the formula for a chunk of queries at a time.
- :mod:`~perceiver_core.kernels.absorbed`: single-head attention that absorbs projections into the other side.
- :mod:`~perceiver_core.kernels.onednn`: linear layers and matrix products by oneDNN.
- :mod:`~perceiver_core.kernels.override`: force a kernel, for tests and benchmarks.
"""
