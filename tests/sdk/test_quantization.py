"""8-bit linear layers: close to the exact ones, only on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from perceiver_core import Linear, MultiHeadAttention
from perceiver_core.kernels.override import force_kernel
from perceiver_plugins.sdk.tasks.quantization import Int8Linear, quantize
from perceiver_plugins.text import LanguageModel, LitLanguageModel
from perceiver_registry import UserError


def test_int8_linear_equals_the_product_of_rounded_factors():
    linear = Linear(37, 11)
    with torch.no_grad():
        linear.weight *= torch.logspace(-3, 3, 11)[:, None]  # channels of very different sizes
        linear.weight[4] = 0.0
        x = torch.randn(2, 5, 37) * torch.logspace(-2, 2, 5)[:, None]  # and positions
        x[1, 3] = 0.0
        layer = Int8Linear(linear)
        rounded = [
            torch.nan_to_num((each * 127 / largest).round() * largest / 127)
            for each in (x.double(), linear.weight.double())
            for largest in [each.abs().amax(dim=-1, keepdim=True)]
        ]
        torch.testing.assert_close(layer.weight, rounded[1].float())
        torch.testing.assert_close(layer(x), (rounded[0] @ rounded[1].T).float() + linear.bias)
        error = (layer(x) - linear(x)).abs() / (x.norm(dim=2, keepdim=True) * linear.weight.norm(dim=1) + 1e-30)
    assert 1e-4 < error.max() < 0.02


@pytest.mark.parametrize("shape", [(0, 5, 8), (8,), (2, 3, 4, 8)])
def test_int8_linear_takes_inputs_of_any_shape(shape):
    linear = nn.Linear(8, 3, bias=False)
    with torch.no_grad():
        torch.testing.assert_close(Int8Linear(linear)(x := torch.randn(shape)), linear(x), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("heads", [3, 1], ids=["several heads", "one head, whose projections are absorbed"])
def test_quantized_output_is_close(text_config, randomise, heads):
    parts = {"num_cross_attention_heads": heads}
    model = randomise(LanguageModel(text_config(parts, parts))).eval()
    tokens = torch.randint(37, (2, 23))
    with torch.no_grad():
        exact = model(tokens)
        assert quantize(model) is model
        output = model(tokens)
    assert not any(isinstance(module, nn.Linear) for module in model.modules())
    error = (output - exact).norm() / exact.norm()
    assert 1e-4 < error < 0.05


def test_quantized_embeddings_are_close(text_config, randomise):
    module = LitLanguageModel.create(text_config()).eval()
    model, tokens = randomise(module.model), torch.randint(37, (2, 23))
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    with torch.no_grad():
        exact = model.embed(batch)
        module.quantize()
        error = (module.model.embed(batch) - exact).norm() / exact.norm()
    assert 1e-4 < error < 0.05


def test_quantized_model_returns_attention_weights(text_config):
    model = quantize(LanguageModel(text_config()).eval())
    with torch.no_grad():
        _, attentions = model(torch.randint(37, (2, 23)), return_attention=True)
    torch.testing.assert_close(attentions.decoder.sum(-1), torch.ones(2, 2, 23))


def test_model_on_another_device_is_rejected(text_config):
    model = LanguageModel(text_config()).to("meta")
    with pytest.raises(UserError, match=r"^--quantize=int8: needs a CPU, got meta \(add --trainer.accelerator=cpu\)$"):
        quantize(model)


def test_torch_without_int8_products_is_reported(text_config, monkeypatch):
    monkeypatch.delattr("torch._int_mm")
    with pytest.raises(UserError, match="cannot multiply 8-bit integers"):
        quantize(LanguageModel(text_config()))


def test_attention_calls_8_bit_projections(randomise):
    attention = randomise(MultiHeadAttention(1, 5, 11, 6, 10, 3)).eval()
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        setattr(attention, name, Int8Linear(getattr(attention, name)))
    x_q, x_kv = torch.randn(2, 3, 5), torch.randn(2, 40, 11)
    q, k, v = attention.q_proj(x_q), attention.k_proj(x_kv), attention.v_proj(x_kv)
    expected = attention.o_proj((q @ k.mT / 6**0.5).softmax(-1) @ v)
    for absorption in (None, "inputs", "queries"):
        with force_kernel("plain", absorption):
            torch.testing.assert_close(attention(x_q, x_kv)[0], expected, atol=1e-5, rtol=1e-4)


def test_modified_layers_are_not_replaced(text_config, randomise):
    """Hooks, parametrizations and subclasses would be lost."""
    model = randomise(LanguageModel(text_config())).eval()
    attention = model.decoder.cross_attention_layer.attention
    attention.q_proj.register_forward_hook(lambda module, inputs, output: 0.0 * output)
    weight_norm(attention.k_proj)
    attention.v_proj = Halved(attention.v_proj.in_features, attention.v_proj.out_features)
    kept = [attention.q_proj, attention.k_proj, attention.v_proj]
    quantize(model)
    assert [attention.q_proj, attention.k_proj, attention.v_proj] == kept
    assert isinstance(attention.o_proj, Int8Linear)


class Halved(nn.Linear):
    def forward(self, x):
        return super().forward(x) / 2
