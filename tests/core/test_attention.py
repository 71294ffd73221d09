"""All paths of attention against the formula, and each other."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from perceiver_core import MultiHeadAttention, attend
from perceiver_core.kernels.override import Kernel, force_kernel
from perceiver_core.kernels.sdpa import choose_kernel


def formula(q, k, v, pad_mask=None, key_bias=None):
    """softmax(q k^T / sqrt(d)) v in float64, head by head and example by example."""
    q, k, v = (x.double() for x in (q, k, v))
    outputs, weights = [], []
    for b in range(k.shape[0]):
        for h in range(k.shape[1]):
            scores = q[b if q.shape[0] > 1 else 0, h] @ k[b, h].T / math.sqrt(q.shape[-1])
            if key_bias is not None:
                scores = scores + key_bias[b]
            if pad_mask is not None:
                scores = scores.clone()
                scores[:, pad_mask[b]] = -math.inf
            exponentials = (scores - scores.amax(-1, keepdim=True)).exp()
            weights.append(exponentials / exponentials.sum(-1, keepdim=True))
            outputs.append(weights[-1] @ v[b, h])
    unflatten = (k.shape[0], k.shape[1])
    return torch.stack(outputs).unflatten(0, unflatten), torch.stack(weights).unflatten(0, unflatten)


def arrays(d=5, e=5, q_batch=3):
    return torch.randn(q_batch, 2, 7, d), torch.randn(3, 2, 11, d), torch.randn(3, 2, 11, e)


@pytest.fixture(params=[None, *get_args(Kernel)])
def path(request, monkeypatch):
    """Each path in turn, and the one that is chosen; chunks are of two queries."""
    monkeypatch.setattr("perceiver_core.kernels.chunked._queries_per_chunk", lambda q, k: 2)
    with force_kernel(request.param):
        yield request.param


@pytest.fixture
def pad_mask():
    mask = torch.zeros(3, 11, dtype=torch.bool)
    mask[0, 10:] = True
    mask[2, :4] = True
    return mask


@pytest.mark.parametrize("e", [5, 3])
@pytest.mark.parametrize("q_batch", [1, 3])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_each_path_equals_the_formula(path, e, q_batch, padded, grad, pad_mask):
    q, k, v = arrays(e=e, q_batch=q_batch)
    mask = pad_mask if padded else None
    with torch.set_grad_enabled(grad):
        output, weights = attend(q, k, v, mask)
        output_beside_weights, returned_weights = attend(q, k, v, mask, return_attention=True)
    expected, expected_weights = formula(q, k, v, mask)

    assert weights is None
    torch.testing.assert_close(output.double(), expected, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(output, output_beside_weights, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(returned_weights.double(), expected_weights, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(returned_weights.sum(-1), torch.ones(3, 2, 7))


@pytest.mark.parametrize("q_batch", [1, 3])
@pytest.mark.parametrize("return_attention", [False, True])
def test_gradients_of_each_path_equal_those_of_the_formula(path, q_batch, return_attention, pad_mask):
    bias = torch.randn(3, 11, dtype=torch.float64, requires_grad=True)
    inputs = (*(x.double().requires_grad_() for x in arrays(q_batch=q_batch)), bias)
    expected = torch.autograd.grad(formula(*inputs[:3], pad_mask, bias)[0].square().sum(), inputs)
    output, _ = attend(*inputs[:3], pad_mask, return_attention=return_attention, key_bias=bias)
    torch.testing.assert_close(torch.autograd.grad(output.square().sum(), inputs), expected)


def test_only_required_gradients_are_computed(path):
    q, k, v = arrays()
    v.requires_grad_()
    attend(q, k, v)[0].sum().backward()
    assert (q.grad, k.grad) == (None, None)
    torch.testing.assert_close(v.grad, formula(q, k, v)[1].float().sum(2)[..., None].expand_as(v), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("e", [5, 3])
@pytest.mark.parametrize("return_attention", [False, True])
def test_scores_use_the_given_scale(path, e, return_attention):
    q, k, v = arrays(e=e)
    expected, _ = formula(q * 0.3 * math.sqrt(5), k, v)
    output, _ = attend(q, k, v, return_attention=return_attention, scale=0.3)
    torch.testing.assert_close(output.double(), expected, atol=2e-6, rtol=1e-5)


def test_inputs_are_not_modified_without_gradients(path):
    inputs = arrays(e=3)
    copies = [x.clone() for x in inputs]
    with torch.no_grad():
        attend(*inputs)
    torch.testing.assert_close(list(inputs), copies, atol=0, rtol=0)


@pytest.mark.parametrize("e", [5, 3])
def test_padding_gets_no_weight_and_has_no_effect(path, e, pad_mask):
    q, k, v = arrays(e=e)
    output, _ = attend(q, k, v, pad_mask)
    _, weights = attend(q, k, v, pad_mask, return_attention=True)
    assert weights.transpose(1, 3)[pad_mask].abs().max() == 0
    hidden = pad_mask[:, None, :, None]
    other_output, _ = attend(q, k.masked_fill(hidden, 40.0), v.masked_fill(hidden, -1e6), pad_mask)
    torch.testing.assert_close(other_output, output, atol=0, rtol=0)


@pytest.mark.parametrize("e", [5, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fully_padded_row_is_finite(path, e, dtype, pad_mask):
    pad_mask[1] = True
    q, k, v = (x.abs().add(3).to(dtype) for x in arrays(e=e))
    k = -k  # all scores are far below zero, where a mask that is added would overflow
    for return_attention in (False, True):
        output, _ = attend(q, k, v, pad_mask, return_attention=return_attention)
        assert output.isfinite().all()


def test_dropout_zeroes_the_given_fraction_and_rescales_the_rest():
    q, k, v = torch.randn(1, 2, 50, 5), torch.randn(1, 2, 100, 5), torch.randn(1, 2, 100, 5)
    _, kept = attend(q, k, v, return_attention=True)
    _, dropped = attend(q, k, v, dropout=0.3, return_attention=True)
    is_dropped = dropped == 0
    assert is_dropped.float().mean().item() == pytest.approx(0.3, abs=0.02)
    torch.testing.assert_close(dropped[~is_dropped], kept[~is_dropped] / 0.7)


def test_dropout_of_each_kernel_zeroes_the_given_fraction(path):
    """Values that are ones find the sum of the weights that are kept, 1 in the mean."""
    q, k, v = torch.randn(1, 2, 50, 5), torch.randn(1, 2, 100, 5), torch.ones(1, 2, 100, 3)
    output, _ = attend(q, k, v, dropout=0.3)
    assert output.mean().item() == pytest.approx(1.0, abs=0.05)
    assert output.std().item() > 0.05
    torch.testing.assert_close(output[..., 0], output[..., 1])


def test_chunked_backward_pass_repeats_the_dropout_mask(monkeypatch):
    monkeypatch.setattr("perceiver_core.kernels.chunked._queries_per_chunk", lambda q, k: 2)
    q, k, v = (x.double().requires_grad_() for x in arrays())
    with force_kernel("chunked"):
        output, _ = attend(q, k, v, dropout=0.4)
        (grad_v,) = torch.autograd.grad(output[0, 0, 3, 0], v)
    # The output of a query is linear in the values: their gradient holds its weights.
    torch.testing.assert_close((grad_v * v).sum(), output[0, 0, 3, 0])
    assert 0 < (grad_v[0, 0, :, 0] == 0).sum() < 11


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("e", [8, 4])
def test_chunked_attention_bounds_the_largest_tensor(monkeypatch, largest, grad, dropout, e):
    """The largest tensor of a pass over 300 x 400 scores, where 10,000 may exist at once, is no larger than these."""
    monkeypatch.setattr("perceiver_core.kernels.sdpa.MAX_SCORES", 10_000)
    monkeypatch.setattr("perceiver_core.kernels.chunked._queries_per_chunk", lambda q, k: 25)
    monkeypatch.setattr("perceiver_core.kernels.onednn.onednn_is_faster", lambda: False)
    q, k, v = (torch.randn(1, 1, n, c, requires_grad=grad) for n, c in ((300, 8), (400, 8), (400, e)))
    with largest:
        output, _ = attend(q, k, v, dropout=dropout)
        if grad:
            output.sum().backward()
    assert largest.size <= 10_000


@pytest.mark.parametrize(
    ("shape", "onednn", "path"),
    [
        ((1, 1, 2048, 322, 2048, 322), True, "chunked"),
        ((1, 1, 2048, 322, 2048, 322), False, "fused"),
        ((1, 8, 256, 32, 2048, 160), True, "chunked"),
        ((1, 8, 256, 32, 2048, 160), False, "plain"),
        ((32, 4, 32, 16, 128, 16), True, "fused"),
        ((32, 4, 32, 16, 128, 8), True, "plain"),
        ((64, 8, 256, 32, 2048, 160), False, "chunked"),
    ],
    ids=str,
)
def test_kernel_choice_depends_on_shape_and_machine(monkeypatch, shape, onednn, path):
    monkeypatch.setattr("perceiver_core.kernels.onednn.onednn_is_faster", lambda: onednn)
    b, heads, n, d, m, e = shape
    q, k, v = (torch.empty(1).expand(b, heads, *last) for last in ((n, d), (m, d), (m, e)))
    assert choose_kernel(q, k, v) == path


def test_dropout_is_applied_in_training_only():
    attention = MultiHeadAttention(2, 6, 8, dropout=0.5)
    x_q, x_kv = torch.randn(2, 3, 6), torch.randn(2, 9, 8)
    assert not torch.equal(attention(x_q, x_kv)[0], attention(x_q, x_kv)[0])
    attention.eval()
    assert torch.equal(attention(x_q, x_kv)[0], attention(x_q, x_kv)[0])


def test_multi_head_attention_projects_splits_and_joins_heads(randomise, pad_mask):
    attention = randomise(MultiHeadAttention(2, 7, 9, num_qk_channels=6, num_v_channels=10, num_output_channels=3))
    x_q, x_kv = torch.randn(3, 4, 7), torch.randn(3, 11, 9)
    output, _ = attention(x_q, x_kv, pad_mask)

    q, k, v = attention.q_proj(x_q), attention.k_proj(x_kv), attention.v_proj(x_kv)
    heads = [formula(*(x.chunk(2, dim=-1)[head][:, None] for x in (q, k, v)), pad_mask)[0][:, 0] for head in range(2)]
    joined = torch.cat(heads, dim=-1)
    expected = joined @ attention.o_proj.weight.double().T + attention.o_proj.bias.double()
    assert output.shape == (3, 4, 3)
    torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_v_channels", [6, 10])
def test_single_query_array_is_broadcast_over_the_batch(num_v_channels):
    attention = MultiHeadAttention(2, 7, 9, num_qk_channels=6, num_v_channels=num_v_channels)
    x_q, x_kv = torch.randn(1, 4, 7), torch.randn(3, 11, 9)
    torch.testing.assert_close(attention(x_q, x_kv)[0], attention(x_q.expand(3, -1, -1), x_kv)[0])


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ({"num_qk_channels": 7}, "num_qk_channels=7"),
        ({"num_qk_channels": 8, "num_v_channels": 9}, "num_v_channels=9"),
        ({}, "num_qk_channels=6"),
    ],
)
def test_channels_not_divisible_by_heads_are_refused(channels, message):
    with pytest.raises(ValueError, match=f"{message}: must be divisible by num_heads=4"):
        MultiHeadAttention(4, 6, 8, **channels)
