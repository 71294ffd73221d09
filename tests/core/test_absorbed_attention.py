"""One head that makes no keys and values, or no queries, is the same attention, and is chosen where it is cheapest."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from benchmarks.products import record
from perceiver_core import Linear, MultiHeadAttention
from perceiver_core.kernels.absorbed import Projections, choose_absorption
from perceiver_core.kernels.override import Absorption, force_kernel

NUM_QUERIES, NUM_INPUTS = 7, 19
PARAMETERS = [f"{projection}_proj.{name}" for projection in "qkvo" for name in ("weight", "bias")]


def projections_of(attention: MultiHeadAttention) -> Projections:
    return Projections(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)


@pytest.fixture(params=["inputs", "queries"])
def absorption(request):
    return request.param


@pytest.fixture
def build(randomise):
    """A function that builds an attention of one head and odd widths, all different where not given."""

    def build(qk=6, v=10, output=3, dropout=0.0, num_heads=1) -> MultiHeadAttention:
        return randomise(MultiHeadAttention(num_heads, 5, 11, qk, v, output, dropout))

    return build


def arrays(q_batch=3, dtype=torch.float32, num_inputs=NUM_INPUTS):
    x_q, x_kv = torch.randn(q_batch, NUM_QUERIES, 5, dtype=dtype), torch.randn(3, num_inputs, 11, dtype=dtype)
    return x_q.requires_grad_(), x_kv.requires_grad_()


@pytest.fixture
def pad_mask():
    mask = torch.zeros(3, NUM_INPUTS, dtype=torch.bool)
    mask[0, 15:] = True
    mask[2, :4] = True
    return mask


def results(attention, x_q, x_kv, *args):
    """Output, weights and the gradients of inputs and parameters (None: not part of the graph), by name."""
    output, weights = attention(x_q, x_kv, *args)
    loss = (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum()
    if weights is not None:
        loss = loss + (weights * torch.linspace(-1, 1, weights.numel(), dtype=output.dtype).view_as(weights)).sum()
    inputs = {"x_q": x_q, "x_kv": x_kv, **dict(attention.named_parameters())}
    inputs = {name: tensor for name, tensor in inputs.items() if tensor.requires_grad}
    grads = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True)
    return {"output": output, "weights": weights} | dict(zip(inputs, grads, strict=True))


def assert_same(actual, expected, rtol=1e-5):
    """Equal up to ``rtol`` of the largest entry of each tensor."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if name == "k_proj.bias":  # the softmax does not see it: zero, up to rounding
            assert actual[name].abs().max() < rtol
            assert value.abs().max() < rtol
        elif value is None:
            assert actual[name] is None, name
        else:
            atol = rtol * value.abs().max().item()
            torch.testing.assert_close(actual[name], value, atol=atol, rtol=rtol, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("channels", [(6, 10, 3), (9, 9, 5), (3, 1, 13)], ids=str)
@pytest.mark.parametrize("q_batch", [1, 3])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("return_attention", [False, True])
def test_absorbed_and_projected_attention_agree(
    build, absorption, channels, q_batch, padded, return_attention, pad_mask
):
    attention, inputs = build(*channels), arrays(q_batch)
    args = (pad_mask if padded else None, return_attention)
    with force_kernel(absorption="none"):
        expected = results(attention, *inputs, *args)
    with force_kernel(absorption=absorption):
        actual = results(attention, *inputs, *args)
    assert (actual["weights"] is not None) == return_attention
    assert_same(actual, expected)
    with torch.no_grad(), force_kernel(absorption=absorption):
        torch.testing.assert_close(attention(*inputs, *args)[0], expected["output"], atol=1e-5, rtol=1e-5)


def formula(attention, x_q, x_kv, pad_mask):
    """softmax(q k^T / sqrt(d)) v of one head in float64, with keys and values."""
    q, k, v = attention.q_proj(x_q), attention.k_proj(x_kv), attention.v_proj(x_kv)
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(pad_mask[:, None], -math.inf)
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    return attention.o_proj(weights @ v), weights[:, None]


@pytest.mark.parametrize("q_batch", [1, 3])
def test_absorbed_attention_equals_the_formula(build, absorption, q_batch, pad_mask):
    attention, inputs = build().double(), arrays(q_batch, torch.float64)
    expected, expected_weights = formula(attention, *inputs, pad_mask)
    with force_kernel(absorption=absorption):
        output, weights = attention(*inputs, pad_mask, return_attention=True)
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(weights, expected_weights)
        torch.testing.assert_close(attention(*inputs, pad_mask)[0], expected)


@pytest.mark.parametrize("q_batch", [1, 3])
@pytest.mark.parametrize("return_attention", [False, True])
def test_dropout_drops_the_weights_of_values_and_of_their_bias(build, absorption, q_batch, return_attention, pad_mask):
    attention, inputs = build(dropout=0.4).double(), arrays(q_batch, torch.float64)
    both = []
    for each in ("none", absorption):
        torch.manual_seed(3)  # both drop from weights of the same shape
        with force_kernel("plain", each):
            both.append(results(attention, *inputs, pad_mask, return_attention))
    assert_same(both[1], both[0], rtol=1e-9)

    with force_kernel(absorption=absorption):
        output, weights = attention(*inputs, pad_mask, return_attention=True)
    assert (weights.sum(-1) - 1).abs().max() > 0.1
    assert (weights == 0).double().mean() > 0.3
    torch.testing.assert_close(output, attention.o_proj(weights[:, 0] @ attention.v_proj(inputs[1])))

    attention.eval()
    torch.testing.assert_close(attention(*inputs, pad_mask)[0], formula(attention, *inputs, pad_mask)[0])


def test_every_parameter_gets_a_gradient(build, absorption):
    attention = build().double()
    with force_kernel(absorption=absorption):
        attention(*arrays(dtype=torch.float64))[0].square().sum().backward()
    grads = {name: parameter.grad for name, parameter in attention.named_parameters()}
    assert [name for name, grad in grads.items() if grad is None] == []  # DDP would wait for it
    assert [name for name, grad in grads.items() if grad.abs().max() < 1e-12] == ["k_proj.bias"]


@pytest.mark.parametrize("frozen", [PARAMETERS, ["k_proj.weight"], ["k_proj.bias", "v_proj.bias"], ["v_proj.weight"]])
def test_frozen_parameters_get_no_gradient_and_others_do(build, absorption, frozen):
    attention, inputs = build(), arrays()
    for name in frozen:
        attention.get_parameter(name).requires_grad_(False)
    both = []
    for each in ("none", absorption):
        with force_kernel(absorption=each):
            both.append(results(attention, *inputs))
    assert set(both[0]) == {"output", "weights", "x_q", "x_kv", *PARAMETERS} - set(frozen)
    assert_same(both[1], both[0])


@pytest.mark.parametrize("return_attention", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_close(build, absorption, dtype, return_attention, pad_mask):
    pad_mask[1] = True  # a row of padding alone must stay finite
    attention, inputs = build(), arrays()
    with force_kernel(absorption="none"):
        expected = attention(*inputs)[0].detach()
    attention.to(dtype)
    with force_kernel(absorption=absorption):
        output, _ = attention(*(x.to(dtype) for x in inputs), None, return_attention)
        padded_output, _ = attention(*(x.to(dtype) for x in inputs), pad_mask, return_attention)
    assert output.dtype == dtype
    torch.testing.assert_close(output.float(), expected, atol=0.05 * expected.abs().max().item(), rtol=0)
    assert padded_output.isfinite().all()


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("return_attention", [False, True])
def test_autocast_gives_equal_dtypes_and_close_values(build, absorption, dropout, return_attention, pad_mask):
    attention, inputs = build(dropout=dropout), arrays(q_batch=1)
    both = []
    for each in ("none", absorption):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16), force_kernel("plain", each):
            both.append(results(attention, *inputs, pad_mask, return_attention))
    ordinary, absorbed = both
    for name, value in ordinary.items():
        if value is not None:
            assert absorbed[name].dtype == value.dtype, name
            atol = 0.05 * max(value.abs().max().item(), 0.1)
            torch.testing.assert_close(absorbed[name], value, atol=atol, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


# Queries and their channels, inputs and their channels, query and key channels, value channels.
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((32, 128, 784, 131, 128, 128), "inputs"),  # digits of 28 x 28 pixels
        ((512, 1024, 50176, 261, 261, 261), "inputs"),  # pictures of 224 x 224 pixels
        ((2048, 512, 182528, 322, 322, 322), "inputs"),  # optical flow: encoder
        ((182528, 322, 2048, 512, 322, 322), "queries"),  # and decoder: many queries of few latents
        ((1, 1024, 512, 1024, 1024, 1024), "inputs"),  # classification: one query, many latents
        ((512, 512, 512, 512, 512, 512), "none"),  # self-attention
        ((256, 1280, 2048, 768, 64, 64), "none"),  # narrow keys and values are cheaper to look at
    ],
    ids=str,
)
def test_known_shapes_use_the_absorption_with_fewest_operations(shape, expected):
    n, f, m, c, qk, v = shape
    with torch.device("meta"):
        attention = MultiHeadAttention(1, f, c, qk, v)
        assert choose_absorption(projections_of(attention), torch.empty(1, n, f), torch.empty(1, m, c)) == expected


@pytest.mark.parametrize("q_batch", [1, 3])
@pytest.mark.parametrize(
    "shape",
    [(2, 40, 11, 6, 10), (40, 2, 11, 6, 10), (7, 19, 11, 11, 11), (7, 19, 11, 2, 4), (9, 9, 8, 8, 8), (60, 3, 5, 9, 7)],
    ids=str,
)
def test_absorption_minimises_counted_operations(shape, q_batch):
    n, m, c, qk, v = shape
    attention = MultiHeadAttention(1, 5, c, qk, v)
    x_q, x_kv = torch.randn(q_batch, n, 5), torch.randn(3, m, c)
    operations = {}
    for absorption in get_args(Absorption):
        with force_kernel("plain", absorption):
            products = record(lambda: attention(x_q, x_kv))
        operations[absorption] = sum(product.flop * count for product, count in products.items())
    assert len({*operations.values()}) > 1
    assert operations[choose_absorption(projections_of(attention), x_q, x_kv)] <= min(operations.values()) * 1.02


@pytest.mark.parametrize(
    ("num_heads", "num_inputs", "absorbed"), [(1, 200, True), (1, 2, False), (2, 200, False)], ids=str
)
def test_keys_and_values_are_projected_for_several_heads_and_few_inputs(
    build, monkeypatch, num_heads, num_inputs, absorbed
):
    attention, projected, forward = build(num_heads=num_heads), {}, Linear.forward
    names = {attention.k_proj: "k_proj", attention.v_proj: "v_proj"}

    def recording(layer, x):  # not a hook, with which nothing would be absorbed
        if layer in names:
            projected[names[layer]] = x.shape[1]
        return forward(layer, x)

    monkeypatch.setattr(Linear, "forward", recording)
    output, weights = attention(*arrays(num_inputs=num_inputs), return_attention=True)
    assert output.shape == (3, NUM_QUERIES, 3)
    assert weights.shape == (3, num_heads, NUM_QUERIES, num_inputs)
    assert projected == ({"v_proj": NUM_QUERIES} if absorbed else {"k_proj": num_inputs, "v_proj": num_inputs})
