"""Options of encoder and decoder, compared with models of other packages that have the same weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from perceiver_core import AdaptedInput, DecoderConfig, EncoderConfig, PerceiverDecoder, PerceiverEncoder
from perceiver_core.layers import CrossAttentionLayer, SelfAttentionLayer
from perceiver_core.mlp import ACTIVATIONS, MLP

B, M, N, C = 3, 13, 5, 24

EXACT = {"atol": 1e-10, "rtol": 1e-10}

SINGLE = {"atol": 1e-6, "rtol": 1e-5}
"""Tolerance for transformers' root-mean-square norm and its softmax, which are computed in single precision."""


def encoder_of(config: EncoderConfig, num_input_channels: int = C) -> PerceiverEncoder:
    return PerceiverEncoder(config, num_input_channels, N, C).double().eval()


def in_order(module: nn.Module) -> list[Tensor]:
    return [parameter.data for parameter in module.parameters()]


@torch.no_grad()
def set_linear(linear: nn.Linear, weight: Tensor, bias: Tensor | None = None) -> None:
    linear.weight.copy_(weight)
    linear.bias.zero_() if bias is None else linear.bias.copy_(bias)


@torch.no_grad()
def set_norm(norm: nn.Module | None, source: nn.Module) -> None:
    assert norm is not None
    norm.load_state_dict(source.state_dict())


def set_attention(attention: nn.Module, weights: list[Tensor], out_bias: Tensor | None = None) -> None:
    for name, weight in zip(("q_proj", "k_proj", "v_proj"), weights, strict=False):
        set_linear(getattr(attention, name), weight)
    set_linear(attention.o_proj, weights[3], out_bias)


def test_perceiver_resampler_equals_that_of_idefics2(randomise):
    modeling = pytest.importorskip("transformers.models.idefics2.modeling_idefics2")
    peer_config = modeling.Idefics2PerceiverConfig(
        hidden_size=C,
        hidden_act="silu",
        resampler_n_latents=N,
        resampler_depth=3,
        resampler_n_heads=4,
        resampler_head_dim=5,
        num_key_value_heads=2,
        rms_norm_eps=1e-6,
        attn_implementation="eager",
    )
    peer = randomise(modeling.Idefics2PerceiverResampler(peer_config)).double().eval()
    config = EncoderConfig(
        num_cross_attention_heads=4,
        num_cross_attention_qk_channels=20,
        cross_attention_widening_factor=4,
        num_cross_attention_layers=3,
        num_self_attention_blocks=3,
        num_self_attention_layers_per_block=0,
        share_repeated_layers=False,
        attend_to_latents=True,
        norm="rms",
        activation="swiglu",
    )
    encoder = encoder_of(config)
    encoder.latents.data.copy_(peer.latents)
    for layer, source in zip(encoder.cross_attention_layers, peer.layers, strict=True):
        set_norm(layer.q_norm, source.input_latents_norm)
        set_norm(layer.kv_norm, source.input_context_norm)
        set_norm(layer.mlp_norm, source.post_attention_layernorm)
        attention = source.self_attn
        # Two query heads share a head of keys and values.
        keys, values = (
            projection.weight.unflatten(0, (2, -1)).repeat_interleave(2, dim=0).flatten(0, 1)
            for projection in (attention.k_proj, attention.v_proj)
        )
        set_attention(layer.attention, [attention.q_proj.weight, keys, values, attention.o_proj.weight])
        set_linear(layer.mlp.hidden, torch.cat([source.mlp.up_proj.weight, source.mlp.gate_proj.weight]))
        set_linear(layer.mlp.output, source.mlp.down_proj.weight)

    x = torch.randn(B, M, C, dtype=torch.double)
    pad_mask = torch.arange(M)[None] >= torch.tensor([[M], [9], [4]])
    expected = peer(context=x, attention_mask=(~pad_mask).long())
    torch.testing.assert_close(peer.norm(encoder(AdaptedInput(x, pad_mask))), expected, **SINGLE)
    single = peer.norm(encoder(AdaptedInput(x[:1])))
    torch.testing.assert_close(single, expected[:1], **SINGLE)


def test_layers_with_own_weights_equal_the_resampler_of_edgetam(randomise):
    modeling = pytest.importorskip("transformers.models.edgetam_video.modeling_edgetam_video")
    peer_config = modeling.EdgeTamVideoConfig(
        perceiver_resampler_num_latents=N,
        perceiver_resampler_num_latents_2d=0,
        perceiver_resampler_hidden_size=C,
        perceiver_resampler_mlp_intermediate_size=2 * C,
        perceiver_resampler_num_attention_heads=1,  # as published; with several, transformers 5 mixes them
        perceiver_resampler_attention_head_dim=7,
        perceiver_resampler_num_layers=3,
        attn_implementation="sdpa",
    )
    peer = randomise(modeling.EdgeTamVideoPerceiverResampler(peer_config)).double().eval()
    config = EncoderConfig(
        num_cross_attention_heads=1,
        num_cross_attention_qk_channels=7,
        cross_attention_widening_factor=2,
        num_cross_attention_layers=3,
        num_self_attention_blocks=3,
        num_self_attention_heads=1,
        num_self_attention_qk_channels=7,
        num_self_attention_layers_per_block=1,
        self_attention_widening_factor=2,
        share_repeated_layers=False,
    )
    encoder = encoder_of(config)
    encoder.latents.data.copy_(peer.latents_1d)
    for i, source in enumerate(peer.layers):
        cross, (self_layer,) = encoder.cross_attention_layers[i], encoder.self_attention_blocks[i]
        set_norm(cross.q_norm, source.layer_norm_latents)
        set_norm(cross.kv_norm, source.layer_norm_input)
        set_norm(self_layer.norm, source.layer_norm_self)
        parts = ((cross, source.cross_attention, source.mlp), (self_layer, source.self_attention, source.self_mlp))
        for layer, attention, mlp in parts:
            set_attention(layer.attention, in_order(attention))
            set_norm(layer.mlp_norm, mlp.layer_norm)
            set_linear(layer.mlp.hidden, mlp.up_proj.weight)
            set_linear(layer.mlp.output, mlp.down_proj.weight)

    images = torch.randn(B, C, 3, 4, dtype=torch.double)
    expected, _ = peer(images)
    latents = encoder(AdaptedInput(images.flatten(2).transpose(1, 2)))
    torch.testing.assert_close(peer.layer_norm(latents), expected, **EXACT)


@pytest.mark.parametrize("tied", [False, True])
def test_classifier_equals_the_perceiver_of_lucidrains(tied, randomise):
    package = pytest.importorskip("perceiver_pytorch")
    peer = package.Perceiver(
        num_freq_bands=1,
        max_freq=1.0,
        depth=6,
        input_channels=11,
        input_axis=1,
        fourier_encode_data=False,
        num_latents=N,
        latent_dim=C,
        cross_heads=1,
        cross_dim_head=7,
        latent_heads=3,
        latent_dim_head=4,
        self_per_cross_attn=2,
        num_classes=4,
        weight_tie_layers=tied,
    )
    peer = randomise(peer).double().eval()
    config = EncoderConfig(
        num_cross_attention_heads=1,
        num_cross_attention_qk_channels=7,
        cross_attention_widening_factor=4,
        num_cross_attention_layers=6,
        num_self_attention_blocks=6,
        num_self_attention_heads=3,
        num_self_attention_qk_channels=12,
        num_self_attention_layers_per_block=2,
        self_attention_widening_factor=4,
        share_repeated_layers=tied,
        first_self_attention_block_shared=False,
        activation="geglu",
    )
    encoder = encoder_of(config, num_input_channels=11)
    decoder = PerceiverDecoder(DecoderConfig(pooling="mean", mlp=False), C, C).double().eval()
    weights = iter(in_order(peer))
    encoder.latents.data.copy_(next(weights))
    for i in range(len(encoder.cross_attention_layers)):
        for layer in (encoder.cross_attention_layers[i], *encoder.self_attention_blocks[i]):
            read_lucidrains_layer(layer, weights)
    linear = decoder.cross_attention_layer.projection
    set_linear(linear, torch.eye(C))
    for parameter in decoder.cross_attention_layer.norm.parameters():
        parameter.data.copy_(next(weights))
    head, bias = next(weights), next(weights)
    assert next(weights, None) is None

    x = torch.randn(B, M, 11, dtype=torch.double)
    mask = torch.arange(M)[None] < torch.tensor([[M], [9], [4]])
    latents = encoder(AdaptedInput(x, ~mask))
    logits = functional.linear(decoder(torch.zeros(1, 1, C).double(), latents).squeeze(1), head, bias)
    torch.testing.assert_close(logits, peer(x, mask=mask), **EXACT)


def read_lucidrains_layer(layer: CrossAttentionLayer | SelfAttentionLayer, weights: Iterator[Tensor]) -> None:
    """Copy the parameters of a lucidrains module to a layer, in the order of the module's classes."""
    queries, keys_values, output, bias = (next(weights) for _ in range(4))
    set_attention(layer.attention, [queries, *keys_values.chunk(2), output], bias)
    is_cross = isinstance(layer, CrossAttentionLayer)
    for norm in (layer.q_norm, layer.kv_norm) if is_cross else (layer.norm,):
        for parameter in norm.parameters():
            parameter.data.copy_(next(weights))
    for linear in (layer.mlp.hidden, layer.mlp.output):
        set_linear(linear, next(weights), next(weights))
    for parameter in layer.mlp_norm.parameters():
        parameter.data.copy_(next(weights))


def test_mean_pooling_adds_the_projected_mean_to_the_queries(randomise):
    config = DecoderConfig(pooling="mean", cross_attention_widening_factor=2, activation="relu", norm="rms")
    decoder = randomise(PerceiverDecoder(config, 6, C)).double().eval()
    queries, latents = torch.randn(1, 2, 6).double(), torch.randn(B, N, C).double()
    layer = decoder.cross_attention_layer
    mean = latents.mean(1)
    normed = mean / (mean.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.norm.weight
    x = queries + layer.projection(normed)[:, None]
    hidden = layer.mlp.hidden(x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.mlp_norm.weight)
    expected = x + layer.mlp.output(hidden.clamp(min=0))
    decoded, weights = decoder(queries, latents, return_attention=True)
    torch.testing.assert_close(decoded, expected, **EXACT)
    torch.testing.assert_close(weights, torch.full((B, 1, 2, N), 1 / N).double())


@pytest.mark.parametrize("mlp", [True, False])
def test_decoder_without_mlp_is_the_attention_alone(mlp, randomise):
    decoder = randomise(PerceiverDecoder(DecoderConfig(num_cross_attention_heads=2, mlp=mlp), 6, C)).eval()
    queries, latents = torch.randn(1, 2, 6), torch.randn(B, N, C)
    layer = decoder.cross_attention_layer
    attended = queries + layer.attention(layer.q_norm(queries), layer.kv_norm(latents))[0]
    expected = attended + layer.mlp(layer.mlp_norm(attended)) if mlp else attended
    torch.testing.assert_close(decoder(queries, latents), expected)


ACTIVATION_FUNCTIONS = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "relu": lambda x: x.clamp(min=0),
    "squared_relu": lambda x: x.clamp(min=0) ** 2,
    "silu": lambda x: x * x.sigmoid(),
    "geglu": lambda x: x[..., :6] * functional.gelu(x[..., 6:]),
    "swiglu": lambda x: x[..., :6] * x[..., 6:] * x[..., 6:].sigmoid(),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_equals_its_formula(activation, randomise):
    mlp = randomise(MLP(3, 2, activation=activation)).double()
    x = torch.randn(B, N, 3).double()
    hidden = ACTIVATION_FUNCTIONS[activation](x @ mlp.hidden.weight.T + mlp.hidden.bias)
    torch.testing.assert_close(mlp(x), hidden @ mlp.output.weight.T + mlp.output.bias, **EXACT)


def test_residual_dropout_drops_whole_outputs_only_in_training(randomise):
    config = EncoderConfig(num_cross_attention_heads=2, num_self_attention_heads=2, residual_dropout=0.999999)
    encoder = randomise(encoder_of(config))
    adapted = AdaptedInput(torch.randn(B, M, C).double())
    plain = EncoderConfig(num_cross_attention_heads=2, num_self_attention_heads=2)
    torch.testing.assert_close(encoder(adapted), encoder_with(encoder, plain)(adapted))
    encoder.train()
    torch.testing.assert_close(encoder(adapted), encoder.latents[None].expand(B, -1, -1))


def encoder_with(encoder: PerceiverEncoder, config: EncoderConfig) -> PerceiverEncoder:
    plain = encoder_of(config)
    plain.load_state_dict(encoder.state_dict())
    return plain


def test_latents_as_keys_need_the_channels_of_the_input():
    with pytest.raises(ValueError, match="attend_to_latents: num_latent_channels=24 must equal the 7 channels"):
        encoder_of(EncoderConfig(attend_to_latents=True), num_input_channels=7)


def test_returned_attention_leaves_out_the_latents(randomise):
    config = EncoderConfig(
        num_cross_attention_heads=2, num_self_attention_heads=2, num_self_attention_layers_per_block=1
    )
    values = vars(config) | {"attend_to_latents": True}
    encoder = randomise(encoder_of(EncoderConfig(**values)))
    adapted = AdaptedInput(torch.randn(B, M, C).double())
    _, (weights,), _ = encoder(adapted, return_attention=True)
    assert weights.shape == (B, 2, N, M)
    _, (plain,), _ = encoder_with(encoder, config)(adapted, return_attention=True)
    torch.testing.assert_close(weights / weights.sum(-1, keepdim=True), plain)
    assert weights.sum(-1).max() < 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"activation": "elu"}, "activation='elu': must be one of gelu, gelu_tanh"),
        ({"norm": "batch"}, "norm='batch': must be one of layer, rms"),
        ({"residual_dropout": 1.0}, "residual_dropout=1.0: must be at least 0 and less than 1"),
    ],
)
def test_wrong_options_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        EncoderConfig(**values)


def test_wrong_pooling_is_refused():
    with pytest.raises(ValueError, match="pooling='max': must be one of attention, mean"):
        DecoderConfig(pooling="max")
