"""Right-aligned causal attention by each kernel, against the formula with a dense mask in float64."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from perceiver_core import MultiHeadAttention, attend
from perceiver_core.kernels.override import Absorption, Kernel, force_kernel
from perceiver_core.kernels.sdpa import choose_kernel

NUM_KEYS = 11
SIZES = [1, 2, 7, 11]
"""Numbers of queries: one, fewer than keys, and as many."""


def formula(q, k, v, pad_mask=None, key_bias=None):
    """softmax(q k^T / sqrt(k)) v over the keys j <= i + m - n that are not padding, query by query."""
    n, m = q.shape[-2], k.shape[-2]
    outputs = []
    for i in range(n):
        seen = i + m - n + 1
        scores = torch.einsum("bhk,bhmk->bhm", q[:, :, i], k[:, :, :seen]) / math.sqrt(q.shape[-1])
        if key_bias is not None:
            scores = scores + key_bias[:, None, :seen]
        if pad_mask is not None:
            scores = scores.masked_fill(pad_mask[:, None, :seen], -1e300)
        outputs.append(torch.einsum("bhm,bhmk->bhk", scores.softmax(-1), v[:, :, :seen]))
    return torch.stack(outputs, dim=2)


def arrays(n, e=5, q_batch=3):
    shapes = ((q_batch, 2, n, 5), (3, 2, NUM_KEYS, 5), (3, 2, NUM_KEYS, e))
    return [torch.randn(shape, dtype=torch.float64).mul_(2).requires_grad_() for shape in shapes]


def padding(side: str) -> torch.Tensor | None:
    if side == "none":
        return None
    mask = torch.zeros(3, NUM_KEYS, dtype=torch.bool)
    mask[1, :3] = side == "left"
    mask[2, :1] = side == "left"
    mask[0, -2:] = side == "right"
    return mask


def meaningful(output, pad_mask):
    """Set the outputs of queries that see padding alone to zero: they are finite, and mean nothing."""
    assert output.isfinite().all()
    if pad_mask is None:
        return output
    seen_padding = pad_mask.long().cumprod(1).bool()[:, -output.shape[2] :]
    return output.masked_fill(seen_padding[:, None, :, None], 0.0)


@pytest.fixture(params=[None, *get_args(Kernel)])
def kernel(request, monkeypatch):
    """Each kernel in turn, and the one that is chosen; chunks are of three queries."""
    monkeypatch.setattr("perceiver_core.kernels.chunked._queries_per_chunk", lambda q, k: 3)
    with force_kernel(request.param):
        yield request.param


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("e", [5, 3])
@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_each_kernel_equals_the_formula_with_gradients(kernel, n, e, side):
    inputs, mask = arrays(n, e, q_batch=1 if side == "none" else 3), padding(side)
    expected = meaningful(formula(inputs[0].expand(3, -1, -1, -1), *inputs[1:], mask), mask)
    direction = torch.randn_like(expected)
    output = meaningful(attend(*inputs, mask, causal=True)[0], mask)
    torch.testing.assert_close(output, expected, atol=1e-12, rtol=0)
    actual_grads, expected_grads = (torch.autograd.grad((o * direction).sum(), inputs) for o in (output, expected))
    torch.testing.assert_close(actual_grads, expected_grads, atol=1e-12, rtol=0)
    with torch.no_grad():
        output = meaningful(attend(*inputs, mask, causal=True)[0], mask)
    torch.testing.assert_close(output, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("n", SIZES)
def test_key_bias_gets_its_gradient(kernel, n):
    inputs = [*arrays(n), torch.randn(3, NUM_KEYS, dtype=torch.float64, requires_grad=True)]
    mask = padding("left")
    output, _ = attend(*inputs[:3], mask, key_bias=inputs[3], causal=True)
    expected = formula(*inputs[:3], mask, inputs[3])
    actual, wanted = (torch.autograd.grad(meaningful(each, mask).square().sum(), inputs) for each in (output, expected))
    torch.testing.assert_close(actual, wanted, atol=1e-11, rtol=0)


@pytest.mark.parametrize("n", SIZES)
def test_returned_weights_hide_later_keys(n):
    q, k, v = arrays(n)
    output, weights = attend(q, k, v, return_attention=True, causal=True)
    assert weights.triu(NUM_KEYS - n + 1).abs().max() == 0
    torch.testing.assert_close(weights @ v, output)
    torch.testing.assert_close(output, formula(q, k, v))


@pytest.mark.parametrize("absorption", get_args(Absorption))
@pytest.mark.parametrize("n", SIZES)
def test_each_absorption_is_causal(randomise, absorption, n):
    attention = randomise(MultiHeadAttention(1, 5, 9, 6, 10, 3)).double()
    x_q, x_kv = (torch.randn(3, size, c, dtype=torch.float64) for size, c in ((n, 5), (NUM_KEYS, 9)))
    q, k, v = attention.q_proj(x_q), attention.k_proj(x_kv), attention.v_proj(x_kv)
    expected = attention.o_proj(formula(q[:, None], k[:, None], v[:, None], padding("left"))[:, 0])
    with force_kernel(absorption=absorption):
        output, _ = attention(x_q, x_kv, padding("left"), causal=True)
    output, expected = (meaningful(each[:, None], padding("left")) for each in (output, expected))
    torch.testing.assert_close(output, expected, atol=1e-12, rtol=0)


def test_dropout_of_chunks_hides_later_keys(monkeypatch):
    monkeypatch.setattr("perceiver_core.kernels.chunked._queries_per_chunk", lambda q, k: 3)
    q, k, v = arrays(7)
    with force_kernel("chunked"):
        output, _ = attend(q, k, v, dropout=0.4, causal=True)
    for i in range(7):
        (grad,) = torch.autograd.grad(output[0, 0, i].sum(), v, retain_graph=True)
        assert not grad[0, 0, i + 5 :].any()
        torch.testing.assert_close((grad * v).sum(), output[0, 0, i].sum())


def test_chunks_skip_the_keys_after_their_last_query(monkeypatch):
    """NaN in a key that a chunk skips does not reach its output; a mask would have multiplied it by zero."""
    monkeypatch.setattr("perceiver_core.kernels.chunked._queries_per_chunk", lambda q, k: 3)
    q, k, v = arrays(7)
    with torch.no_grad(), force_kernel("chunked"):
        v[:, :, 7:] = math.nan
        output, _ = attend(q, k, v, causal=True)
    assert output[:, :, :3].isfinite().all()
    assert not output[:, :, 3:].isfinite().any()


@pytest.mark.parametrize(("n", "m"), [(300, 300), (300, 500)])
@pytest.mark.parametrize("padded", [False, True])
def test_large_causal_attention_has_no_mask_of_all_scores(monkeypatch, largest, n, m, padded):
    for limit in ("MAX_SCORES", "MAX_MASK_SIZE"):
        monkeypatch.setattr(f"perceiver_core.kernels.sdpa.{limit}", 20_000)
    monkeypatch.setattr("perceiver_core.kernels.chunked._queries_per_chunk", lambda q, k: 25)
    q, k, v = (torch.randn(1, 2, size, 8, requires_grad=True) for size in (n, m, m))
    with largest:
        attend(q, k, v, torch.arange(m)[None] < 9 if padded else None, causal=True)[0].sum().backward()
    assert largest.size <= 25 * m


@pytest.mark.parametrize(
    ("shape", "padded", "expected"),
    [
        ((16, 4, 128, 512), False, "fused"),
        ((8, 8, 512, 4096), False, "fused"),
        ((8, 8, 512, 4096), True, "chunked"),
        ((1, 8, 1024, 32768), False, "chunked"),
        ((1, 8, 32768, 32768), False, "fused"),
    ],
    ids=str,
)
def test_kernel_choice_bounds_the_mask(shape, padded, expected):
    b, heads, n, m = shape
    q, k = (torch.empty(1).expand(b, heads, size, 32) for size in (n, m))
    bias = torch.zeros(b, 1, 1, m) if padded else None
    assert choose_kernel(q, k, k, bias, causal=True) == expected


def test_more_queries_than_keys_are_refused():
    q, k, v = arrays(12)
    with pytest.raises(ValueError, match="causal attention of 12 queries: needs at least as many keys, got 11"):
        attend(q, k, v, causal=True)
