"""Order of the encoder's layers, and computation of the decoder."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import gelu, layer_norm

from perceiver_core import AdaptedInput, DecoderConfig, EncoderConfig, PerceiverDecoder, PerceiverEncoder


def make_encoder(**values) -> PerceiverEncoder:
    config = EncoderConfig(
        num_cross_attention_heads=1, num_self_attention_heads=2, num_self_attention_layers_per_block=3, **values
    )
    encoder = PerceiverEncoder(config, num_input_channels=5, num_latents=3, num_latent_channels=4)
    torch.nn.init.normal_(encoder.latents)
    return encoder


def record_applications(encoder: PerceiverEncoder) -> list[str]:
    """The names of the attention layers that a forward pass applies, in order."""
    applied: list[str] = []
    for name, module in encoder.named_modules():
        if type(module).__name__ in ("CrossAttentionLayer", "SelfAttentionLayer"):
            module.register_forward_hook(lambda *_, name=name: applied.append(name))
    encoder(AdaptedInput(torch.randn(2, 7, 5)))
    return applied


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def sets_in_order(applications: int, first_shared: bool) -> list[int]:
    """The weight set of each application: the later ones share theirs, and the first one if it is said to."""
    return [0 if i == 0 or first_shared else 1 for i in range(applications)]


@pytest.mark.parametrize(("layers", "blocks"), [(1, 1), (1, 4), (2, 2), (2, 3), (4, 4)])
@pytest.mark.parametrize("cross_shared", [False, True])
@pytest.mark.parametrize("self_shared", [False, True])
def test_weight_sharing_flags_of_repeated_layers(layers, blocks, cross_shared, self_shared):
    encoder = make_encoder(
        num_cross_attention_layers=layers,
        num_self_attention_blocks=blocks,
        first_cross_attention_layer_shared=cross_shared,
        first_self_attention_block_shared=self_shared,
    )
    cross_sets, self_sets = sets_in_order(layers, cross_shared), sets_in_order(blocks, self_shared)
    expected = []
    for i in range(blocks):
        if i < layers:
            expected.append(f"cross_attention_layers.{cross_sets[i]}")
        expected += [f"self_attention_blocks.{self_sets[i]}.{layer}" for layer in range(3)]
    assert record_applications(encoder) == expected

    # Weights that are applied under two names are one parameter, and those of different sets are different ones.
    one = make_encoder()
    cross_layer, self_block = count(one.cross_attention_layers), count(one.self_attention_blocks)
    expected_count = 12 + len(set(cross_sets)) * cross_layer + len(set(self_sets)) * self_block
    assert count(encoder) == expected_count
    assert sum(p.numel() for p in {id(p): p for p in encoder.parameters()}.values()) == expected_count


def test_layers_that_are_never_applied_are_not_created():
    assert len(make_encoder(num_cross_attention_layers=1).cross_attention_layers) == 1
    assert len(make_encoder(first_self_attention_block_shared=False).self_attention_blocks) == 1


def test_every_encoder_parameter_gets_a_gradient():
    encoder = make_encoder(
        num_cross_attention_layers=2, num_self_attention_blocks=3, first_self_attention_block_shared=False
    )
    encoder(AdaptedInput(torch.randn(2, 7, 5))).square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def cross_attention_formula(layer, x_q, x_kv, heads, residual):
    """Perceiver IO, appendix E, written out in float64 for one example."""
    weights = {name: value.double() for name, value in layer.state_dict().items()}

    def norm(x, name):
        return layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-5)

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    x_q, x_kv = x_q.double(), x_kv.double()
    normed_q, normed_kv = norm(x_q, "q_norm"), norm(x_kv, "kv_norm")
    q = linear(normed_q, "attention.q_proj").chunk(heads, dim=-1)
    k = linear(normed_kv, "attention.k_proj").chunk(heads, dim=-1)
    v = linear(normed_kv, "attention.v_proj").chunk(heads, dim=-1)
    attended = [(q[i] @ k[i].T / math.sqrt(q[i].shape[-1])).softmax(-1) @ v[i] for i in range(heads)]
    x = linear(torch.cat(attended, dim=-1), "attention.o_proj") + (x_q if residual else 0)
    return x + linear(gelu(linear(norm(x, "mlp_norm"), "mlp.hidden")), "mlp.output")


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("qk", "v", "widening"), [(None, None, 1), (9, 15, 2), (6, None, 3)])
def test_decoder_equals_the_formula_of_the_paper(residual, qk, v, widening, randomise):
    config = DecoderConfig(
        num_cross_attention_heads=3,
        num_cross_attention_qk_channels=qk,
        num_cross_attention_v_channels=v,
        cross_attention_widening_factor=widening,
        cross_attention_residual=residual,
    )
    decoder = randomise(PerceiverDecoder(config, num_query_channels=12, num_latent_channels=8))
    queries, latents = torch.randn(2, 5, 12), torch.randn(2, 4, 8)
    expected = [
        cross_attention_formula(decoder.cross_attention_layer, *example, heads=3, residual=residual)
        for example in zip(queries, latents, strict=True)
    ]
    torch.testing.assert_close(decoder(queries, latents).double(), torch.stack(expected), atol=1e-5, rtol=1e-5)
    shared = decoder(queries[:1], latents)
    torch.testing.assert_close(shared[0], decoder(queries, latents)[0])
    torch.testing.assert_close(shared[1], decoder(queries[:1], latents[1:])[0])


def test_attention_of_every_layer_is_returned_without_changing_the_output(build, batch):
    model = build(
        encoder={"num_cross_attention_layers": 2, "num_self_attention_blocks": 3},
        decoder={"num_cross_attention_heads": 7},
    )
    output, attentions = model(batch, return_attention=True)
    torch.testing.assert_close(output, model(batch), atol=1e-5, rtol=1e-5)
    assert [tuple(weights.shape) for weights in attentions.encoder_cross] == [(3, 2, 5, 13)] * 2
    assert [tuple(weights.shape) for weights in attentions.encoder_self] == [(3, 3, 5, 5)] * 6
    assert attentions.decoder.shape == (3, 7, 11, 5)
    for weights in (*attentions.encoder_cross, *attentions.encoder_self, attentions.decoder):
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert attentions.encoder_cross[0].transpose(1, 3)[batch["pad_mask"]].abs().max() == 0
