"""Scaled dot-product attention by the fastest kernel for its shapes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from perceiver_core.kernels.chunked import chunked_attention
from perceiver_core.kernels.onednn import prefers_onednn
from perceiver_core.kernels.override import Kernel, forced_kernel
from perceiver_core.kernels.plain import hidden_keys, plain_attention
from perceiver_core.unmodified import are_plain_tensors

MAX_SCORES = 2**24
"""Scores that may exist at once, and be kept for the backward pass: 64 MiB in single precision (arbitrary)."""

MAX_MASK_SIZE = 2**22
"""Entries of the largest mask of causal attention: 16 MiB in single precision (arbitrary)."""


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pad_mask: Tensor | None = None,
    dropout: float = 0.0,
    return_attention: bool = False,
    scale: float | None = None,
    key_bias: Tensor | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Compute scaled dot-product attention, softmax(q k^T / sqrt(k)) v, by the fastest exact kernel for these shapes.

    Vaswani et al. 2017 (arXiv 1706.03762), equation 1.

    Args:
        q: queries (b or 1, h, n, k); a batch of 1 is shared by all examples.
        k: keys (b, h, m, k).
        v: values (b, h, m, e), with e value channels per head.
        pad_mask: padding mask (b, m), True where the key is padding and gets no weight. An example that is all padding
            gives a finite, meaningless output. Default: no padding.
        dropout: dropout probability of the attention weights.
        return_attention: also return the attention weights; this takes the plain kernel.
        scale: factor of q k^T. Default: 1 / sqrt(k).
        key_bias: (b, m), added to all scores of a key, after scaling. Default: no bias.
        causal: right-aligned causal attention: the queries are at the positions of the last n keys, and query i sees
            key j only if j <= i + m - n.

    Returns:
        The output (b, h, n, e), and the attention weights after dropout (b, h, n, m) or None.

    Raises:
        ValueError: if causal attention has more queries than keys.
    """
    n, m = q.shape[-2], k.shape[-2]
    if causal and n > m:
        raise ValueError(f"causal attention of {n} queries: needs at least as many keys, got {m}")
    causal = causal and n > 1  # a single query sees all keys
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    bias = _score_bias(q, pad_mask, key_bias)
    kernel = "plain" if return_attention else forced_kernel() or choose_kernel(q, k, v, bias, dropout, causal)
    if kernel == "plain":
        output, weights = plain_attention(q, k, v, bias, dropout, scale, causal)
        return output, weights if return_attention else None
    q = q.expand(k.shape[0], -1, -1, -1)
    if kernel == "fused":
        mask, is_causal = _fused_mask(q, k, bias) if causal else (bias, False)
        output = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal, scale=scale
        )
        return output, None
    return chunked_attention(q, k, v, bias, dropout, scale, causal), None


def choose_kernel(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0, causal: bool = False
) -> Kernel:
    """Choose the fastest kernel for these shapes on this device, of those whose scores fit into :data:`MAX_SCORES`.

    On CPUs the fused kernel needs equal query and value channels, no dropout, and a bias without gradient: without
    these it falls back to one that is slower than the plain formula. Where oneDNN multiplies faster
    (:mod:`perceiver_core.kernels.onednn`), so do chunks of the formula that use it. ``python -m benchmarks
    attention-paths`` compares the kernels for the shapes of the official models. Causal attention that needs a mask
    (n, m) of more than :data:`MAX_MASK_SIZE` in the fused kernel takes the chunked one, which needs none.

    Args:
        q: queries (b or 1, h, n, k).
        k: keys (b, h, m, k).
        v: values (b, h, m, e).
        bias: added to the scores. Default: no bias.
        dropout: dropout probability of the attention weights.
        causal: right-aligned causal attention.
    """
    if torch.compiler.is_compiling():
        return "fused"
    b, heads, m, _ = k.shape
    few_scores = b * heads * q.shape[-2] * m <= MAX_SCORES
    if not are_plain_tensors(q, k, v):
        # The chunked kernel has no rules for tensor subclasses and transforms.
        return "plain" if few_scores else "fused"
    fused_mask_fits = not causal or _fused_mask_size(q, k, bias) <= MAX_MASK_SIZE
    if q.device.type != "cpu":
        has_fused = fused_mask_fits and _has_fused_gpu_kernel(q, k, v, bias, dropout)
        return "fused" if few_scores or has_fused else "chunked"
    if dropout == 0.0 and not causal and _is_faster_in_chunks(q, k, v):
        return "chunked"
    if dropout == 0.0 and fused_mask_fits and _has_fused_cpu_kernel(k, v, bias):
        return "fused"
    return "plain" if few_scores else "chunked"


def _fused_mask_size(q: Tensor, k: Tensor, bias: Tensor | None) -> int:
    """Return the number of entries of the mask that causal attention needs in the fused kernel."""
    n, m = q.shape[-2], k.shape[-2]
    if bias is not None:
        return len(bias) * n * m
    return 0 if n == m or q.device.type == "cuda" else n * m


def _fused_mask(q: Tensor, k: Tensor, bias: Tensor | None) -> tuple[Tensor | None, bool]:
    """Return the mask of causal attention for the fused kernel, and whether that kernel is to mask by itself.

    Its own causal mask is left-aligned, which is the same for as many queries as keys.
    """
    n, m = q.shape[-2], k.shape[-2]
    if bias is not None:
        return bias.masked_fill(hidden_keys(n, m, q.device), -math.inf), False
    if n == m:
        return None, True
    if q.device.type == "cuda" and not torch.compiler.is_compiling():
        return causal_lower_right(n, m), False
    return ~hidden_keys(n, m, q.device), False


def _is_faster_in_chunks(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Return whether a CPU computes both products of a head faster with oneDNN."""
    multiplications = q.shape[-2] * k.shape[-2] * min(k.shape[-1], v.shape[-1])
    return prefers_onednn(2 * multiplications, q, k, v)


def _has_fused_cpu_kernel(k: Tensor, v: Tensor, bias: Tensor | None) -> bool:
    """Return whether the fused kernel of CPUs takes these inputs."""
    return k.shape[-1] == v.shape[-1] and not (bias is not None and bias.requires_grad)


def _has_fused_gpu_kernel(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float) -> bool:
    """Return whether a GPU has a kernel for these inputs that does not hold all scores at once."""
    if q.device.type != "cuda":
        return True
    cuda = torch.backends.cuda
    params = cuda.SDPAParams(q.expand(k.shape[0], -1, -1, -1), k, v, bias, dropout, False, False)
    return (
        cuda.can_use_flash_attention(params)
        or cuda.can_use_efficient_attention(params)
        or cuda.can_use_cudnn_attention(params)
    )


def _score_bias(q: Tensor, pad_mask: Tensor | None, key_bias: Tensor | None) -> Tensor | None:
    """Return what is added to the scores, (b, 1, 1, m), or None."""
    bias = None if key_bias is None else key_bias.to(q.dtype)
    if pad_mask is not None:
        lowest = torch.finfo(q.dtype).min / 2  # half, so that a score added to it stays finite in half precision
        padding = torch.zeros_like(pad_mask, dtype=q.dtype).masked_fill_(pad_mask, lowest)
        bias = padding if bias is None else bias.masked_fill(pad_mask, lowest)
    return None if bias is None else bias[:, None, None, :]
