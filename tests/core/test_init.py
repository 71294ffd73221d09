"""Initial weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from perceiver_core import (
    AdaptedInput,
    Batch,
    DecoderConfig,
    EncoderConfig,
    InputAdapter,
    InputQueryProvider,
    MultiHeadAttention,
    OutputAdapter,
    PerceiverConfig,
    PerceiverIO,
    PositionLayout,
    QueryProvider,
    SelfAttentionLayer,
    TrainableQueryProvider,
)
from perceiver_core.local_init import SHARPNESS, LocalInitParts, init_local, sinusoids


@pytest.fixture
def wide(input_adapter, output_adapter):
    """A function that builds a model with enough weights to estimate their deviation."""

    def wide(**values):
        encoder = EncoderConfig(2, num_self_attention_layers_per_block=2, init_scale=0.05)
        decoder = DecoderConfig(2, num_cross_attention_qk_channels=64, init_scale=0.2)
        config = PerceiverConfig(encoder, decoder, num_latents=40, num_latent_channels=96, **values)
        return PerceiverIO(config, input_adapter, output_adapter)

    return wide


def test_weights_are_drawn_from_a_normal_distribution_of_the_given_scale(wide):
    model = wide()
    for part, scale in ((model.encoder, 0.05), (model.decoder, 0.2)):
        for module in part.modules():
            if isinstance(module, nn.Linear):
                assert module.weight.std().item() == pytest.approx(scale, rel=0.15)
                assert abs(module.weight.mean().item()) < 0.12 * scale
                assert module.bias.abs().max() == 0
            elif isinstance(module, nn.LayerNorm):
                assert module.weight.eq(1).all()
                assert module.bias.eq(0).all()
    assert model.encoder.latents.std().item() == pytest.approx(0.05, rel=0.1)
    weights = torch.cat([p.flatten() for n, p in model.encoder.named_parameters() if "proj.weight" in n])
    within = (weights.abs() < 0.05).float().mean().item()
    assert within == pytest.approx(0.683, abs=0.01)  # of a normal distribution within one deviation


def test_local_positions_latents_and_queries_share_the_sinusoidal_table(wide):
    model = wide(init="local")
    tables = (model.input_adapter.positions, model.encoder.latents, model.output_adapter.query_provider.queries)
    for table, scale in zip(tables, (0.05, 0.05, 0.2), strict=True):
        expected = 2**0.5 * scale * sinusoids(table.shape[0], 10)
        torch.testing.assert_close(table[:, :10].detach(), expected)
        assert expected.std().item() == pytest.approx(scale, rel=0.1)
    assert model.encoder.latents[:, 10:].std().item() == pytest.approx(0.05, rel=0.15)


def test_local_keys_are_an_orthogonal_map_and_queries_the_same_map_at_the_heads_offset(wide):
    model = wide(init="local")
    num_latents = 40
    encoder, decoder = model.encoder.cross_attention_layers[0].attention, model.decoder.cross_attention_layer.attention
    for attention, spacing in ((encoder, 0.5 / num_latents), (decoder, 1 / num_latents)):
        key = attention.k_proj.weight[:, :10].detach()
        torch.testing.assert_close(key.T @ key, SHARPNESS**2 * torch.eye(10), atol=1e-5, rtol=0)
        query = attention.q_proj.weight[:, :10].detach()
        for head, rows in enumerate(torch.arange(key.shape[0]).chunk(2)):
            offset = (head - 0.5) * spacing
            # Queries are keys at an offset: a fine table of one is a shifted table of the other.
            fine = sinusoids(800, 10)
            shift = round(offset * 800)
            encoded = fine[50:300] @ query[rows].T
            shifted = fine[50 + shift : 300 + shift] @ key[rows].T
            assert shift != 0
            torch.testing.assert_close(encoded, shifted, atol=1e-4, rtol=0)


def test_local_values_pass_through_a_cross_attention(wide):
    attention = wide(init="local").encoder.cross_attention_layers[0].attention
    passed = attention.o_proj.weight @ attention.v_proj.weight
    torch.testing.assert_close(passed, torch.eye(*passed.shape), atol=1e-5, rtol=0)


def test_sinusoids_have_periods_from_the_window_to_a_part_of_it():
    table = sinusoids(256, 7)
    assert table.shape == (256, 7)
    assert table[:, 6].eq(0).all()
    torch.testing.assert_close(table[:, :3].square() + table[:, 3:6].square(), torch.ones(256, 3))
    changes_of_sign = (table[:, :3].sign().diff(dim=0) != 0).sum(dim=0).tolist()
    assert changes_of_sign == [1, 15, 127]  # periods of 1, 1/8 and 1/64 of the window


def test_sinusoids_match_those_of_the_same_position_in_another_table():
    nearest = (sinusoids(256, 12) @ sinusoids(64, 12).T).argmax(dim=1)
    assert (nearest - torch.arange(256) // 4).abs().max() <= 1


def test_local_needs_positions(build, input_adapter, monkeypatch):
    monkeypatch.delattr(type(input_adapter), "position_layout")
    with pytest.raises(ValueError, match="init='local': ArrayInput has no positions"):
        build(init="local")


def centres(init: str, num_positions: int, num_latents: int, num_heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean attended positions of latents (n) and of outputs (o), averaged over the heads."""
    torch.manual_seed(0)
    encoder = EncoderConfig(num_heads, num_self_attention_heads=1, num_self_attention_layers_per_block=1)
    config = PerceiverConfig(encoder, DecoderConfig(num_heads), num_latents, num_latent_channels=128, init=init)
    queries = TrainableQueryProvider(num_positions, 128)
    model = PerceiverIO(config, Sequence(num_positions, 128), OutputAdapter(queries))
    adapted = model.input_adapter({"x": torch.zeros(1, num_positions, 128)})
    latents = model.encoder.latents[None]
    read = model.encoder.cross_attention_layers[0](latents, adapted.x, return_attention=True)[1]
    decoded = model.decoder.cross_attention_layer(queries.queries[None], latents, return_attention=True)[1]
    return read[0].mean(dim=0) @ centred_positions(num_positions), decoded[0].mean(dim=0) @ centred_positions(
        num_latents
    )


def centred_positions(number: int) -> torch.Tensor:
    return (torch.arange(number) + 0.5) / number


@pytest.mark.parametrize(("num_positions", "num_latents", "num_heads"), [(128, 32, 1), (50, 7, 2), (300, 20, 4)])
def test_local_attention_is_centred_on_positions_of_latents_and_outputs(num_positions, num_latents, num_heads):
    read, decoded = centres("local", num_positions, num_latents, num_heads)
    # The median: at the ends of the window, what heads would look at beyond them is missing.
    assert (read - centred_positions(num_latents)).abs().median() < 0.1 / num_latents
    assert (decoded - centred_positions(num_positions)).abs().median() < 0.5 * num_heads / num_latents


def test_normal_attention_is_centred_nowhere():
    for centre in centres("normal", 128, 32, 1):
        assert (centre - 0.5).abs().max() < 0.1


class Sequence(InputAdapter):
    """Adds learned positions to ``batch["x"]`` (b, m, c)."""

    def __init__(self, num_positions: int, num_channels: int):
        super().__init__(num_channels)
        self.positions = nn.Parameter(torch.randn(num_positions, num_channels))

    def position_layout(self) -> PositionLayout:
        return PositionLayout(self.positions, self.positions)

    def forward(self, batch: Batch) -> AdaptedInput:
        return AdaptedInput(batch["x"] + self.positions)


LAST = {f"encoder.self_attention_blocks.0.0.{name}.weight" for name in ("attention.o_proj", "mlp.output")}
"""The last weights of the branches of the only self-attention layer."""


def initialised(input_adapter, queries: QueryProvider, init: str) -> dict[str, torch.Tensor]:
    """The weights of a model with these queries, without those of its input adapter."""
    torch.manual_seed(3)
    encoder = EncoderConfig(
        2, num_self_attention_heads=3, num_self_attention_layers_per_block=1, num_self_attention_blocks=3
    )
    config = PerceiverConfig(encoder, DecoderConfig(2), num_latents=5, num_latent_channels=12, init=init)
    model = PerceiverIO(config, input_adapter, OutputAdapter(queries))
    return {key: value for key, value in model.state_dict().items() if not key.startswith("input_adapter.")}


@pytest.mark.parametrize(
    "queries", [QueryProvider(14), TrainableQueryProvider(3, 14, ordered=False)], ids=["given", "learned"]
)
def test_local_leaves_an_output_without_an_order_as_it_is(input_adapter, queries):
    before = {key: value.clone() for key, value in queries.state_dict().items()}
    normal, local = (initialised(input_adapter, queries, init) for init in ("normal", "local"))
    changed = {key for key in normal if not torch.equal(normal[key], local[key])}
    layer = "encoder.cross_attention_layers.0.attention"
    assert changed == {"encoder.latents", *LAST, *(f"{layer}.{name}_proj.weight" for name in "qkvo")}
    torch.testing.assert_close(queries.state_dict(), before, rtol=0, atol=0)


def test_local_self_attention_adds_as_much_in_all_as_one_branch_of_a_normal_one(input_adapter):
    normal, local = (initialised(input_adapter, QueryProvider(14), init) for init in ("normal", "local"))
    for name in LAST:
        torch.testing.assert_close(local[name] * 6**0.5, normal[name])  # 3 applications, 2 branches each


@pytest.mark.parametrize("queries", [InputQueryProvider(10), TrainableQueryProvider(3, 14)], ids=["input", "learned"])
def test_local_changes_the_decoder_of_an_output_in_order(input_adapter, queries):
    normal, local = (initialised(input_adapter, queries, init) for init in ("normal", "local"))
    changed = {key for key in normal if not torch.equal(normal[key], local[key])}
    layers = ("encoder.cross_attention_layers.0.attention", "decoder.cross_attention_layer.attention")
    maps = (f"{layer}.{name}_proj.weight" for layer in layers for name in "qkvo")
    assert changed == {"encoder.latents", *LAST, *maps}


def test_local_initialisation_needs_no_model(input_adapter):
    latents, layer = torch.zeros(5, 12), SelfAttentionLayer(3, 12)
    before = layer.mlp.output.weight.clone()
    parts = LocalInitParts(
        input_adapter,
        InputQueryProvider(10),
        latents,
        encoder_attentions=[MultiHeadAttention(2, 12, 10)],
        decoder_attention=MultiHeadAttention(1, 10, 12, num_qk_channels=12),
        self_attention_layers=[layer],
        num_self_attention_applications=8,
        encoder_scale=0.05,
        decoder_scale=0.2,
    )
    init_local(parts)
    torch.testing.assert_close(latents[:, :10], 2**0.5 * 0.05 * sinusoids(5, 10))
    assert latents[:, 10:].eq(0).all()
    torch.testing.assert_close(layer.mlp.output.weight, before / 4)  # 8 applications, 2 branches each
    for attention in (*parts.encoder_attentions, parts.decoder_attention):
        passed = attention.o_proj.weight @ attention.v_proj.weight
        torch.testing.assert_close(passed, torch.eye(*passed.shape), atol=1e-5, rtol=0)
