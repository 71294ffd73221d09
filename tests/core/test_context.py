"""Extra batch entries reach the output adapter at the output positions that are decoded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perceiver_core import AdaptedInput, Batch, Context, PerceiverIO, select_positions

NUM_OUTPUTS = 11


@pytest.fixture
def context() -> Context:
    """Entries of positions and examples, and one for other output positions than the model has."""
    return {"shift": torch.randn(3, NUM_OUTPUTS, 3), "scale": torch.rand(3, 1, 1) + 1, "unused": torch.randn(3, 4)}


@pytest.fixture
def model(build, monkeypatch: pytest.MonkeyPatch) -> PerceiverIO:
    """A model whose input adapter hands on context, and whose output adapter undoes a normalisation with it."""
    model: PerceiverIO = build().eval()

    def adapt(batch: Batch) -> AdaptedInput:
        return AdaptedInput(batch["x"], batch["pad_mask"], batch["context"])

    def undo(output: Tensor, context: Context) -> Tensor:
        return output * context["scale"] + context["shift"]

    monkeypatch.setattr(model.input_adapter, "forward", adapt)
    monkeypatch.setattr(model.output_adapter, "apply_context", undo)
    return model


@pytest.fixture
def expected(model: PerceiverIO, batch: Batch, context: Context) -> Tensor:
    """The whole output (3, 11, 3), normalised by the model and undone here."""
    adapted = AdaptedInput(batch["x"], batch["pad_mask"])
    queries = model.output_adapter.query_provider(adapted)
    normalised = model.output_adapter(model.decoder(queries, model.encoder(adapted)))
    return (normalised * context["scale"] + context["shift"]).detach()


@pytest.mark.parametrize("return_attention", [False, True])
def test_the_output_is_completed_with_context(model, batch, context, expected, return_attention) -> None:
    output = model(batch | {"context": context}, return_attention=return_attention)
    torch.testing.assert_close(output[0] if return_attention else output, expected)


@pytest.mark.parametrize("positions", [torch.tensor([[3, 0, 3], [10, 1, 2], [4, 4, 5]]), torch.tensor([[7, 2]])])
def test_context_follows_integer_positions(model, batch, context, expected, positions) -> None:
    output = model(batch | {"context": context}, positions)
    index = positions.expand(3, -1)
    torch.testing.assert_close(output, expected[torch.arange(3)[:, None], index])


@pytest.mark.parametrize("return_attention", [False, True])
def test_context_follows_a_mask(model, batch, context, expected, return_attention) -> None:
    mask = torch.rand(3, NUM_OUTPUTS) < 0.4
    mask[1] = False
    output = model(batch | {"context": context}, mask, return_attention)
    torch.testing.assert_close(output[0] if return_attention else output, expected[mask])


@torch.no_grad()
def test_context_follows_chunks_of_queries(model, batch, context, expected, monkeypatch) -> None:
    monkeypatch.setattr("perceiver_core.perceiver_io.MAX_QUERIES_PER_CHUNK", 4)
    torch.testing.assert_close(model(batch | {"context": context}), expected)


def test_an_adapter_without_use_for_context_ignores_it(build, model, batch, context, monkeypatch) -> None:
    positions = torch.tensor([[3, 0], [10, 1], [4, 4]])
    monkeypatch.setattr(model.output_adapter, "apply_context", lambda output, context: output)
    with_context = model(batch | {"context": context}, positions)
    torch.testing.assert_close(with_context, model(batch | {"context": {}}, positions), rtol=0, atol=0)


@pytest.mark.slow
def test_a_model_with_context_compiles(model, batch, context, expected) -> None:
    positions = torch.tensor([[3, 0], [10, 1], [4, 4]])
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch | {"context": context}), expected)
    torch.testing.assert_close(
        compiled(batch | {"context": context}, positions), expected[torch.arange(3)[:, None], positions]
    )


def test_positions_of_arrays_of_any_number_of_dimensions() -> None:
    for shape in ((2, 5), (2, 5, 3), (2, 5, 3, 2)):
        array = torch.randn(shape)
        positions = torch.tensor([[4, 0, 0], [1, 2, 3]])
        assert select_positions(array, positions).equal(array[torch.arange(2)[:, None], positions])
        assert select_positions(array, positions[:1]).equal(array[:, positions[0]])
        assert select_positions(array, None) is array
