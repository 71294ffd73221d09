"""Decoding selected positions equals selecting from the full output, and computes only these."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from perceiver_core import (
    AdaptedInput,
    DecoderConfig,
    EncoderConfig,
    InputQueryProvider,
    OutputAdapter,
    PerceiverConfig,
    PerceiverIO,
    QueryProvider,
    TrainableQueryProvider,
)
from perceiver_core.model import mask_to_positions


@pytest.fixture(params=[True, False], ids=["residual", "no-residual"])
def model(request, build, randomise):
    return randomise(build(decoder={"cross_attention_residual": request.param}))


@pytest.fixture
def decoded_shapes(model):
    """Shapes of the decoder's outputs, call by call."""
    shapes = []
    model.decoder.register_forward_hook(lambda _, inputs, output: shapes.append(tuple(output.shape[:2])))
    return shapes


def ragged_mask():
    """Mask with a different number of positions in each example, none in one of them."""
    mask = torch.zeros(3, 11, dtype=torch.bool)
    mask[0, [0, 7, 10]] = True
    mask[2, [1, 2, 5, 6, 9]] = True
    return mask


def test_integer_positions_select_positions_of_each_example(model, batch, decoded_shapes):
    positions = torch.tensor([[3, 0, 0], [10, 9, 1], [2, 5, 4]])
    expected = model(batch).gather(1, positions[:, :, None].expand(-1, -1, 3))
    torch.testing.assert_close(model(batch, positions), expected, atol=1e-5, rtol=1e-5)
    assert decoded_shapes == [(3, 11), (3, 3)]


def test_one_row_of_positions_is_shared_by_all_examples(model, batch, decoded_shapes):
    positions = torch.tensor([[8, 2]])
    torch.testing.assert_close(model(batch, positions), model(batch)[:, [8, 2]], atol=1e-5, rtol=1e-5)
    assert decoded_shapes == [(3, 2), (3, 11)]


def test_a_mask_selects_as_indexing_the_whole_output_does(model, batch, decoded_shapes):
    mask = ragged_mask()
    torch.testing.assert_close(model(batch, mask), model(batch)[mask], atol=1e-5, rtol=1e-5)
    assert decoded_shapes == [(3, 5), (3, 11)]


def test_a_full_mask_selects_everything(model, batch):
    mask = torch.ones(3, 11, dtype=torch.bool)
    torch.testing.assert_close(model(batch, mask), model(batch).flatten(0, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 5), (3, 10), (3, 12), (1, 11), (2, 11), (11,)])
def test_a_mask_of_another_shape_is_refused(model, batch, shape):
    with pytest.raises(ValueError, match=r"positions: a boolean mask must have the output's shape \(3, 11\), got"):
        model(batch, torch.ones(shape, dtype=torch.bool))


class InputLongerByOne(QueryProvider):
    """Third-party queries that do not declare the number of outputs."""

    def forward(self, adapted, positions=None):
        queries = adapted.x.new_ones(1, adapted.x.shape[1] + 1, self.num_query_channels)
        return queries if positions is None else queries.expand(len(positions), -1, -1)[:, : positions.shape[1]]


@pytest.mark.parametrize(
    ("provider", "num_outputs"), [(InputQueryProvider(10), 13), (InputLongerByOne(10), 14)], ids=["input", "other"]
)
def test_a_mask_is_as_wide_as_the_queries_of_any_provider(batch, input_adapter, provider, num_outputs):
    output_adapter = OutputAdapter(provider)
    output_adapter.forward = lambda decoded: decoded
    config = PerceiverConfig(
        EncoderConfig(num_cross_attention_heads=2, num_self_attention_heads=3),
        DecoderConfig(num_cross_attention_heads=2),
        num_latents=5,
        num_latent_channels=12,
    )
    model = PerceiverIO(config, input_adapter, output_adapter)
    assert len(model(batch, torch.ones(3, num_outputs, dtype=torch.bool))) == 3 * num_outputs
    with pytest.raises(ValueError, match=rf"shape \(3, {num_outputs}\), got \(3, 12\)"):
        model(batch, torch.ones(3, 12, dtype=torch.bool))


def test_positions_of_a_long_mask_keep_their_order():
    mask = torch.rand(2, 3000) < 0.3
    positions, chosen = mask_to_positions(mask)
    assert chosen.sum(1).tolist() == mask.sum(1).tolist()
    for example, is_chosen, selected in zip(positions, chosen, mask, strict=True):
        assert example[is_chosen].equal(selected.nonzero().flatten())


def test_selecting_no_position_gives_an_empty_output_and_zero_gradients(model, batch, decoded_shapes):
    for positions in (torch.zeros(3, 11, dtype=torch.bool), torch.zeros(3, 0, dtype=torch.long)):
        output = model(batch, positions)
        assert output.numel() == 0
        assert output.shape[-1] == 3
        output.sum().backward()
        assert model.encoder.latents.grad.abs().sum() == 0
    assert decoded_shapes == [(3, 0), (3, 0)]


def test_loss_and_gradients_equal_those_of_decoding_everything(model, batch):
    mask = ragged_mask()
    labels = torch.where(mask, torch.randint(3, mask.shape), -100)
    results = []
    for lazy in (False, True):
        model.zero_grad(set_to_none=True)
        if lazy:
            loss = cross_entropy(model(batch, mask), labels[mask])
        else:
            loss = cross_entropy(model(batch).flatten(0, 1), labels.flatten(), ignore_index=-100)
        loss.backward()
        results.append((loss.detach(), {name: p.grad for name, p in model.named_parameters()}))
    torch.testing.assert_close(results[1], results[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["integers", "mask"])
def test_attention_of_selected_positions_is_returned(model, batch, kind):
    mask = ragged_mask()
    positions = mask if kind == "mask" else torch.tensor([[3, 0], [10, 9], [2, 5]])
    _, everything = model(batch, return_attention=True)
    _, attentions = model(batch, positions, return_attention=True)
    selected = [[0, 7, 10], [], [1, 2, 5, 6, 9]] if kind == "mask" else positions.tolist()
    for weights, all_weights, example in zip(attentions.decoder, everything.decoder, selected, strict=True):
        torch.testing.assert_close(weights[:, : len(example)], all_weights[:, example], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_gradients_of_selected_queries_are_deterministic_on_several_threads():
    provider = TrainableQueryProvider(64, 128)
    positions = torch.randint(64, (64, 32))
    weights = torch.randn(64, 32, 128)
    adapted = AdaptedInput(torch.zeros(64, 1, 1))
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        gradients = []
        for _ in range(20):
            provider.zero_grad()
            (provider(adapted, positions) * weights).sum().backward()
            gradients.append(provider.queries.grad.clone())
    finally:
        torch.set_num_threads(num_threads)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
