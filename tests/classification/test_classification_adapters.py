"""Output adapters for any input: parameters, initialisation, validation of configs."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import layer_norm

from perceiver_core import AdaptedInput
from perceiver_core.local_init import sinusoids
from perceiver_plugins.classification.adapters import PooledQueryProvider
from perceiver_plugins.classification.config import (
    ClassificationDecoderConfig,
    RegressionDecoderConfig,
    TokenClassificationDecoderConfig,
)
from perceiver_registry import assemble, config_from_dict, config_to_dict, registry

QUERIES, WEIGHT, BIAS = "query_provider.queries", "linear.weight", "linear.bias"

DECODERS = {
    "classification": (
        ClassificationDecoderConfig(1, num_classes=7, num_output_queries=3, num_output_query_channels=8),
        {QUERIES: (3, 8), WEIGHT: (7, 8), BIAS: (7,)},
        (2, 3, 7),
    ),
    "one query": (
        ClassificationDecoderConfig(2, num_classes=5, num_output_query_channels=6),
        {QUERIES: (1, 6), WEIGHT: (5, 6), BIAS: (5,)},
        (2, 5),
    ),
    "token-classification": (
        TokenClassificationDecoderConfig(num_classes=7),
        {WEIGHT: (7, 10), BIAS: (7,)},
        (2, 9, 7),
    ),
    "regression": (
        RegressionDecoderConfig(2, num_targets=4, num_output_query_channels=8),
        {QUERIES: (1, 8), WEIGHT: (4, 8), BIAS: (4,)},
        (2, 4),
    ),
}


@pytest.mark.parametrize("name", DECODERS)
def test_shapes_of_parameters_and_output(model_config, sequences, name):
    decoder, shapes, output = DECODERS[name]
    model = assemble(model_config(decoder))
    assert {key: tuple(value.shape) for key, value in model.output_adapter.state_dict().items()} == shapes
    assert model(sequences(2)).shape == output


@pytest.mark.parametrize("name", ["classification", "regression"])
def test_output_is_linear_in_decoder_output(model_config, randomise, name):
    adapter = randomise(assemble(model_config(DECODERS[name][0])).output_adapter)
    decoded = torch.randn(2, 3 if name == "classification" else 1, 8)
    expected = decoded @ adapter.linear.weight.T + adapter.linear.bias
    torch.testing.assert_close(adapter(decoded), expected.squeeze(1), check_dtype=False)


@pytest.mark.parametrize("name", DECODERS)
def test_weights_are_initialised_at_configured_scale(model_config, name):
    decoder = DECODERS[name][0]
    scale, decoder.init_scale = decoder.init_scale, 0.5
    model = assemble(model_config(decoder))
    decoder.init_scale = scale
    weights = [p.flatten() for p in model.output_adapter.parameters() if p.dim() == 2]
    assert torch.cat(weights).std().item() == pytest.approx(0.5, rel=0.3)
    assert model.output_adapter.linear.bias.eq(0).all()


@pytest.mark.parametrize("name", ["classification", "regression"])
def test_local_init_leaves_output_adapter_unchanged(model_config, name):
    def parts(init: str) -> tuple[dict, dict]:
        torch.manual_seed(5)
        state = assemble(model_config(DECODERS[name][0], init=init)).state_dict()
        encoder = {key: value for key, value in state.items() if key.startswith(("encoder.", "input_adapter."))}
        return encoder, {key: value for key, value in state.items() if key not in encoder}

    (normal, output_normal), (local, output_local) = parts("normal"), parts("local")
    torch.testing.assert_close(output_local, output_normal, rtol=0, atol=0)
    for key, length in (("encoder.latents", 5), ("input_adapter.position_embedding.weight", 9)):
        expected = 2**0.5 * 0.02 * sinusoids(length, 10)  # the positions' channels, which the latents share
        torch.testing.assert_close(local[key][:, :10], expected)
        assert not torch.allclose(normal[key][:, :10], expected)
    changed = {key for key in local if not torch.equal(local[key], normal[key])}
    layer = "encoder.cross_attention_layers.0.attention"
    assert {f"{layer}.{name}_proj.weight" for name in "qkvo"} < changed


def test_local_init_makes_positions_attend_to_nearby_latents(model_config):
    decoder = TokenClassificationDecoderConfig(num_classes=3)
    encoder = {"max_seq_len": 200, "num_input_channels": 32, "num_cross_attention_heads": 1}
    values = {"num_latents": 40, "num_latent_channels": 48, "init": "local"}
    model = assemble(model_config(decoder, encoder, **values)).eval()
    torch.nn.init.zeros_(model.input_adapter.token_embedding.weight)
    adapted = model.input_adapter({"input_ids": torch.zeros(1, 200, dtype=torch.long)})
    # The initial latents, before cross-attention to the input.
    _, weights = model.decoder(adapted.x, model.encoder.latents[None], return_attention=True)
    distance = (weights[0, 0].argmax(dim=-1) - torch.arange(200) // 5).abs()
    assert (distance <= 1).float().mean() > 0.95


@pytest.mark.parametrize("name", DECODERS)
def test_config_round_trip_through_plain_data(model_config, name):
    decoder = DECODERS[name][0]
    config = model_config(decoder)
    plain = config_to_dict(config)
    assert plain["decoder"]["adapter"] == ("classification" if name == "one query" else name)
    assert config_from_dict(plain) == config


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: ClassificationDecoderConfig(num_classes=0), r"\.num_classes=0: must be at least 1"),
        (lambda: TokenClassificationDecoderConfig(num_classes=0), r"\.num_classes=0: must be at least 1"),
        (lambda: ClassificationDecoderConfig(num_output_queries=0), r"\.num_output_queries=0: must be at least 1"),
        (
            lambda: ClassificationDecoderConfig(num_classes=3, label_names=["ham", "spam"]),
            r"\.label_names: 2 names \(ham, spam\) do not match num_classes=3",
        ),
        (
            lambda: TokenClassificationDecoderConfig(label_names=["a", "b", "c", "d"]),
            r"\.label_names: 4 names \(a, b, c, ...\) do not match num_classes=2",
        ),
        (lambda: ClassificationDecoderConfig(label_names=[1, 2]), r"\.label_names=\[1, 2\]: must be a list of texts"),
        (lambda: RegressionDecoderConfig(target_names="y"), r"\.target_names='?y'?: must be a list of texts"),
        (lambda: RegressionDecoderConfig(num_targets=0), r"\.num_targets=0: must be at least 1"),
        (lambda: RegressionDecoderConfig(target_names=["x", "y"]), r"\.target_names: 2 names .* num_targets=1"),
        (lambda: RegressionDecoderConfig(target_mean=[1.0, 2.0]), r"\.target_mean=\[1.0, 2.0\]: must have num_targets"),
        (lambda: RegressionDecoderConfig(target_std=[]), r"\.target_std=\[\]: must have num_targets numbers"),
        (lambda: RegressionDecoderConfig(target_std=[0.0]), r"\.target_std=\[0.0\]: must be greater than 0"),
    ],
)
def test_invalid_config_values_are_refused(create, message):
    with pytest.raises(ValueError, match=r"^(Token)?(Classification|Regression)DecoderConfig" + message) as error:
        create()
    assert "\n" not in str(error.value)


def test_heads_must_divide_input_channels(model_config):
    with pytest.raises(ValueError, match="num_qk_channels=10: must be divisible by num_heads=4"):
        assemble(model_config(TokenClassificationDecoderConfig(4)))


@pytest.mark.parametrize("name", ["classification", "token-classification", "regression"])
def test_default_decoder_of_a_task_serves_it(name):
    assert registry().get("task", name).spec.defaults["model.decoder"] == name
    assert name in registry().get("output", name).spec.tasks


def test_pooled_queries_add_the_mean_of_the_input(randomise):
    provider = randomise(PooledQueryProvider(3, 8, 5))
    x, pad_mask = torch.randn(4, 7, 5), torch.rand(4, 7) < 0.4
    pad_mask[0], pad_mask[1] = False, True
    queries = provider(AdaptedInput(x, pad_mask))
    assert queries.shape == (4, 3, 8)
    for example, padding, found in zip(x, pad_mask, queries, strict=True):
        kept = example[~padding]
        mean = kept.mean(0) if len(kept) else torch.zeros(5)
        normalised = layer_norm(mean, (5,), provider.norm.weight, provider.norm.bias)
        torch.testing.assert_close(found, provider.queries + provider.projection(normalised))
    positions = torch.tensor([[2, 0]])
    torch.testing.assert_close(provider(AdaptedInput(x, pad_mask), positions), queries[:, [2, 0]])
    torch.testing.assert_close(provider(AdaptedInput(x[:1]))[0], queries[0])


@pytest.mark.parametrize("config_type", [ClassificationDecoderConfig, RegressionDecoderConfig])
def test_pooling_is_chosen_in_the_config(model_config, config_type):
    for pools in (False, True):
        model = assemble(model_config(config_type(2, num_output_query_channels=8, pool_inputs=pools)))
        assert isinstance(model.output_adapter.query_provider, PooledQueryProvider) == pools
