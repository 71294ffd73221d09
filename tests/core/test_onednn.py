"""Linear layers are torch's, whichever library computes them."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear as torch_linear

from perceiver_core import Linear, linear
from perceiver_core.kernels.onednn import MIN_MULTIPLICATIONS, onednn_is_faster


@pytest.fixture(params=["mkl", "onednn"])
def library(request, monkeypatch):
    """Runs a test with either library, whatever is faster on this machine."""
    if request.param == "onednn" and not torch.backends.mkldnn.is_available():
        pytest.skip("torch is built without oneDNN")
    monkeypatch.setattr("perceiver_core.kernels.onednn.onednn_is_faster", lambda: request.param == "onednn")
    monkeypatch.setattr("perceiver_core.kernels.onednn.MIN_MULTIPLICATIONS", 1)
    return request.param


def arrays(shape=(3, 11, 37), num_outputs=53):
    x, weight, bias = torch.randn(shape), torch.randn(num_outputs, shape[-1]), torch.randn(num_outputs)
    return [tensor.requires_grad_() for tensor in (x, weight, bias)]


def graph_name(output) -> str:
    return type(output.grad_fn).__name__


@pytest.mark.parametrize("shape", [(37,), (1, 37), (13, 37), (3, 11, 37), (2, 0, 37)])
def test_results_and_gradients_equal_torchs(library, shape):
    inputs = arrays(shape)
    output, expected = linear(*inputs), torch_linear(*inputs)
    assert ("OneDNN" in graph_name(output)) == (library == "onednn" and len(shape) > 1 and output.numel() > 0)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(linear(*inputs), expected, atol=1e-4, rtol=1e-5)
    actual = torch.autograd.grad(output.square().sum(), inputs)
    torch.testing.assert_close(actual, torch.autograd.grad(expected.square().sum(), inputs), atol=1e-3, rtol=1e-4)


def test_views_and_a_missing_bias_are_fine(library):
    x, weight, _ = arrays((37, 11, 3), num_outputs=53)
    x, weight = x.transpose(0, 2), weight.expand(53, 3)[:, :1].expand(53, 37)
    torch.testing.assert_close(linear(x, weight), torch_linear(x, weight), atol=1e-4, rtol=1e-5)


def test_gradients_have_gradients(library):
    inputs = arrays()
    second = []
    for function in (linear, torch_linear):
        (grad,) = torch.autograd.grad(function(*inputs).square().sum(), inputs[:1], create_graph=True)
        second.append(torch.autograd.grad(grad.square().sum(), inputs))
    torch.testing.assert_close(second[0], second[1], atol=1, rtol=1e-4)


def test_frozen_inputs_get_no_gradient(library):
    x, weight, bias = arrays()
    weight.requires_grad_(False)
    linear(x, weight, bias).sum().backward()
    assert weight.grad is None
    torch.testing.assert_close(bias.grad, torch.full((53,), 33.0))
    assert x.grad is not None


@pytest.mark.parametrize("case", ["double", "autocast", "meta"])
def test_unsupported_cases_fall_back_to_torch(library, case):
    inputs = [tensor.double() if case == "double" else tensor for tensor in arrays()]
    if case == "meta":
        inputs = [tensor.to("meta") for tensor in inputs]
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        output = linear(*inputs)
        expected = torch_linear(*inputs)
    assert "OneDNN" not in graph_name(output)
    assert output.dtype == expected.dtype
    if case != "meta":
        assert output.equal(expected)


def test_small_products_fall_back_to_torch(monkeypatch):
    monkeypatch.setattr("perceiver_core.kernels.onednn.onednn_is_faster", lambda: torch.backends.mkldnn.is_available())
    small = linear(*arrays((MIN_MULTIPLICATIONS // (128 * 128) - 1, 128), num_outputs=128))
    assert "OneDNN" not in graph_name(small)


def test_linear_is_a_torch_linear():
    layer = Linear(5, 3)
    assert isinstance(layer, torch.nn.Linear)
    x = torch.randn(2, 5)
    torch.testing.assert_close(layer(x), linear(x, layer.weight, layer.bias))


def test_use_of_onednn_depends_on_the_machine():
    assert onednn_is_faster() in (True, False)
    assert onednn_is_faster() == onednn_is_faster()


@pytest.mark.parametrize("is_enabled", [True, False])
def test_product_of_a_row_in_half_precision_restores_the_flag_of_torch(library, is_enabled):
    x, weight, bias = (tensor.bfloat16() for tensor in arrays((1, 1, 37)))
    was_enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(is_enabled)
    try:
        torch.testing.assert_close(linear(x, weight, bias), torch_linear(x, weight, bias))
        with pytest.raises(RuntimeError):
            linear(x, weight[:, 1:], bias)
        assert torch._C._get_mkldnn_enabled() == is_enabled
    finally:
        torch._C._set_mkldnn_enabled(was_enabled)


def test_large_products_do_not_depend_on_the_flag_of_torch(library):
    x, weight, bias = arrays()
    expected = linear(x, weight, bias)
    torch._C._set_mkldnn_enabled(False)  # as another thread may do
    try:
        assert linear(x, weight, bias).equal(expected)
    finally:
        torch._C._set_mkldnn_enabled(True)
