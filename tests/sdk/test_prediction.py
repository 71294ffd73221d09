"""Base class of predictors: batches, invalid inputs, attention maps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from perceiver_core import (
    AdaptedInput,
    Attentions,
    DecoderConfig,
    EncoderConfig,
    InputAdapter,
    OutputAdapter,
    PerceiverConfig,
    PerceiverIO,
    TrainableQueryProvider,
)
from perceiver_plugins.sdk.prediction.predictor import Predictor, input_attention
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_registry import UserError


def softmax_of(*shape: int) -> Tensor:
    return torch.randn(shape).softmax(dim=-1)


def test_input_attention_sums_to_1():
    attentions = Attentions([softmax_of(2, 3, 5, 7), softmax_of(2, 4, 5, 7)], [], softmax_of(2, 2, 6, 5))
    maps = input_attention(attentions)
    assert [tuple(each.shape) for each in maps] == [(2, 7), (2, 7)]
    for each, cross in zip(maps, attentions.encoder_cross, strict=True):
        torch.testing.assert_close(each.sum(dim=1), torch.ones(2))
        for b in range(2):  # by its definition
            latents = sum(attentions.decoder[b, h, o] for h in range(2) for o in range(6)) / 12
            heads = sum(cross[b, h] for h in range(cross.shape[1])) / cross.shape[1]
            torch.testing.assert_close(each[b], sum(latents[n] * heads[n] for n in range(5)))


def test_latents_are_weighted_by_the_decoder():
    encoder = torch.eye(3)[None, None]  # each latent attends to its own position
    decoder = torch.tensor([[[[0.5, 0.25, 0.25]], [[0.1, 0.9, 0.0]]]])  # two heads, one query
    (weights,) = input_attention(Attentions([encoder], [], decoder))
    torch.testing.assert_close(weights, torch.tensor([[0.3, 0.575, 0.125]]))


def test_heads_and_output_queries_are_averaged():
    encoder = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]]])  # three heads of one latent
    (weights,) = input_attention(Attentions([encoder], [], torch.ones(1, 1, 4, 1)))
    torch.testing.assert_close(weights, torch.tensor([[1 / 3, 2 / 3]]))
    decoder = torch.eye(2)[None, None][:, :, [0, 0, 0, 1]]  # three of four queries attend to the first latent
    (weights,) = input_attention(Attentions([torch.eye(2)[None, None]], [], decoder))
    torch.testing.assert_close(weights, torch.tensor([[0.75, 0.25]]))


def test_input_attention_is_normalised_after_dropout():
    encoder = torch.tensor([[[[0.2, 0.0, 0.2]]]])
    (weights,) = input_attention(Attentions([encoder], [], torch.full((1, 1, 1, 1), 0.5)))
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.0, 0.5]]))


class Numbers(InputAdapter):
    """Input adapter with an input position for each number."""

    def __init__(self):
        super().__init__(4)
        self.linear = torch.nn.Linear(1, 4)

    def forward(self, batch) -> AdaptedInput:
        return AdaptedInput(self.linear(batch["numbers"][..., None]), batch["pad_mask"])


class Sum(OutputAdapter):
    """Output adapter that returns a number."""

    def forward(self, decoded: Tensor) -> Tensor:
        return decoded.sum(dim=(1, 2))


class NumbersReader(Reader):
    """Reader of numbers separated by commas. Inputs are separated by semicolons."""

    def expand(self, inputs):
        return [text for given in inputs for text in given.split(";")]

    def read(self, source: str) -> list[float]:
        try:
            return [float(number) for number in source.split(",")]
        except ValueError as error:
            raise UserError(f"{source!r}: not numbers") from error

    def collate(self, examples):
        length = max(map(len, examples))
        self.sizes = [*getattr(self, "sizes", []), len(examples)]
        numbers = torch.tensor([[*example, *[0.0] * (length - len(example))] for example in examples])
        lengths = torch.tensor([[len(example)] for example in examples])
        return {"numbers": numbers, "pad_mask": torch.arange(length) >= lengths}

    def draw_attention(self, source, example, weights, path: Path) -> Path:
        file = path.with_name(path.name + ".json")
        file.write_text(json.dumps([source, [layer[: len(example)].tolist() for layer in weights]]))
        return file


class SumPredictor(Predictor):
    def answers(self, output: Tensor, examples) -> list[dict]:
        return [
            {"sum": number, "length": len(example)} for number, example in zip(output.tolist(), examples, strict=True)
        ]

    @staticmethod
    def rows(predictions) -> Iterator[dict[str, str]]:
        yield from ({key: str(value) for key, value in each.items()} for each in predictions)


@pytest.fixture
def module(randomise):
    """Stand-in for a Lightning module: a model and its device."""
    encoder = EncoderConfig(
        2,
        num_cross_attention_layers=2,
        num_self_attention_heads=3,
        num_self_attention_layers_per_block=1,
        num_self_attention_blocks=2,
    )
    config = PerceiverConfig(encoder, DecoderConfig(1), num_latents=3, num_latent_channels=6)
    module = torch.nn.Module()
    module.model = randomise(PerceiverIO(config, Numbers(), Sum(TrainableQueryProvider(2, 5))))
    module.device = torch.device("cpu")
    return module


@pytest.fixture
def reader() -> NumbersReader:
    return NumbersReader({}, None)


SOURCES = ["1,2,3", "4", "5,-6", "0.5,0.25,7,8", "9,9"]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 99])
def test_inputs_are_predicted_in_batches_in_order(module, reader, batch_size):
    predictor = SumPredictor(module, reader, batch_size)
    predictions = predictor.predict(["1,2,3;4", "5,-6;0.5,0.25,7,8;9,9"])
    assert [prediction["input"] for prediction in predictions] == SOURCES
    assert [prediction["length"] for prediction in predictions] == [3, 1, 2, 4, 2]
    assert reader.sizes == [len(SOURCES[i : i + batch_size]) for i in range(0, 5, batch_size)]
    for source, prediction in zip(SOURCES, predictions, strict=True):
        alone = module.model(reader.collate([reader.read(source)]))
        assert prediction["sum"] == pytest.approx(alone.item(), abs=1e-5)
    assert predictor.failures == []


def test_inputs_are_predicted_in_evaluation_mode(module, reader):
    """Dropout has no effect in prediction, and the mode of each submodule is restored."""
    module.model = torch.nn.ModuleDict({"model": module.model, "frozen": torch.nn.Dropout().eval()})
    module.model.forward = lambda batch, positions=None: module.model["frozen"](module.model["model"](batch, positions))
    expected = SumPredictor(module.eval(), reader).predict(SOURCES)
    for each in module.model["model"].modules():
        each.dropout = 0.5  # of the attention layers
    module.train()
    module.model["frozen"].eval()
    modules = [*module.modules()]
    modes = [each.training for each in modules]
    with torch.no_grad():
        batch = reader.collate([reader.read(source) for source in SOURCES])
        assert not torch.equal(module.model(batch), module.model(batch))  # dropout is on
    for prediction in SumPredictor(module, reader, 2).stream(SOURCES):
        assert prediction == pytest.approx(expected.pop(0))
        assert [each.training for each in modules] == modes
    assert not expected
    module.model["model"].input_adapter = None  # modes are restored after a failed prediction, too
    with pytest.raises(TypeError):
        SumPredictor(module, reader).predict(SOURCES)
    assert [each.training for each in modules] == modes


@pytest.mark.parametrize("batch_size", [1, 2, 99])
def test_unreadable_inputs_are_reported(module, reader, batch_size):
    predictor = SumPredictor(module, reader, batch_size)
    predictions = predictor.predict(["one", "1,2", "two", "three", "3"])
    assert [prediction["input"] for prediction in predictions] == ["1,2", "3"]
    assert predictor.failures == ["'one': not numbers", "'two': not numbers", "'three': not numbers"]


def test_all_inputs_may_be_unreadable(module, reader):
    predictor = SumPredictor(module, reader)
    assert predictor.predict(["one"]) == []
    assert len(predictor.failures) == 1


class VectorReader(NumbersReader):
    """Reader whose examples are stacked, which fails for vectors of different lengths."""

    def collate(self, examples):
        numbers = torch.stack([torch.tensor(example) for example in examples])
        return {"numbers": numbers, "pad_mask": torch.zeros(numbers.shape, dtype=torch.bool)}


class RejectingModel(torch.nn.Module):
    """Model that raises an error for vectors of a length other than 2."""

    def __init__(self, model: torch.nn.Module, error: Exception):
        super().__init__()
        self.model = model
        self.error = error

    def forward(self, batch, positions=None):
        if batch["numbers"].shape[1] != 2:
            raise self.error
        return self.model(batch, positions)


@pytest.mark.parametrize("batch_size", [1, 2, 99])
def test_inputs_of_different_shapes_are_predicted_in_batches_of_equal_shapes(module, reader, batch_size):
    inputs = ["1,2", "1,2,3", "3,4", "none", "4,5,6", "7,8"]
    predictor = SumPredictor(module, VectorReader({}, None), batch_size)
    predictions = predictor.predict(inputs)
    expected = SumPredictor(module, reader, 1).predict(inputs)
    assert [prediction["input"] for prediction in predictions] == ["1,2", "1,2,3", "3,4", "4,5,6", "7,8"]
    for prediction, other in zip(predictions, expected, strict=True):
        assert prediction["sum"] == pytest.approx(other["sum"], abs=1e-5)
    assert predictor.failures == ["'none': not numbers"]


@pytest.mark.parametrize("reader_class", [NumbersReader, VectorReader], ids=["padded", "stacked"])
@pytest.mark.parametrize(
    ("batch_size", "error"), [(1, ValueError), (2, ValueError), (99, ValueError), (2, RuntimeError), (99, RuntimeError)]
)
def test_input_of_a_rejected_shape_is_reported(module, reader_class, batch_size, error):
    module.model = RejectingModel(module.model, error("length must be 2"))
    predictor = SumPredictor(module, reader_class({}, None), batch_size)
    predictions = predictor.predict(["1,2,3", "1,2", "none", "3,4", "5"])
    assert [prediction["input"] for prediction in predictions] == ["1,2", "3,4"]
    assert predictor.failures == [
        "1,2,3: the model does not support this input (length must be 2)",
        "'none': not numbers",
        "5: the model does not support this input (length must be 2)",
    ]


@pytest.mark.parametrize("batch_size", [1, 99])
@pytest.mark.parametrize("number", ["nan", "inf"])
def test_inputs_whose_output_is_not_finite_are_reported(module, reader, number, batch_size):
    predictor = SumPredictor(module, reader, batch_size)
    assert [prediction["input"] for prediction in predictor.predict(["1,2", number, "3"])] == ["1,2", "3"]
    assert predictor.failures == [f"{number}: the model does not support this input (its output is not finite)"]


def test_input_that_cannot_be_collated_is_reported(module):
    class Choosy(NumbersReader):
        def collate(self, examples):
            if any(len(example) > 2 for example in examples):
                raise UserError("more than two numbers")
            return super().collate(examples)

    predictor = SumPredictor(module, Choosy({}, None))
    assert [prediction["input"] for prediction in predictor.predict(["1,2", "1,2,3", "3"])] == ["1,2", "3"]
    assert predictor.failures == ["1,2,3: the model does not support this input (more than two numbers)"]


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        (["1", "1,2,3"], RuntimeError("bug")),  # all inputs fail
        (["1,2", "1"], torch.OutOfMemoryError("no memory")),
        (["1,2", "1"], TypeError("bug")),
    ],
    ids=["all inputs", "memory", "bug"],
)
def test_unrelated_error_ends_the_prediction(module, inputs, error):
    module.model = RejectingModel(module.model, error)
    with pytest.raises(type(error), match=str(error)):
        SumPredictor(module, VectorReader({}, None)).predict(inputs)


def test_error_for_a_known_shape_ends_the_prediction(module):
    class Once(torch.nn.Module):
        calls = 0

        def forward(self, batch, positions=None):
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("bug")
            return batch["numbers"].sum(dim=1)

    module.model = Once()
    with pytest.raises(RuntimeError, match="bug"):
        SumPredictor(module, VectorReader({}, None), 1).predict(["1,2", "3,4"])


def test_prediction_is_without_gradients(module, reader):
    class Needs(SumPredictor):
        def answers(self, output: Tensor, examples) -> list[dict]:
            return [{"needs": output.requires_grad} for _ in examples]

    assert Needs(module, reader).predict(["1,2"]) == [{"input": "1,2", "needs": False}]
    assert module.model(reader.collate([[1.0]])).requires_grad


@pytest.mark.parametrize("batch_size", [1, 3])
def test_attention_is_drawn_for_each_input(module, reader, tmp_path, batch_size):
    folder = tmp_path / "new" / "folder"
    predictor = SumPredictor(module, reader, batch_size, attention=str(folder))
    plain = SumPredictor(module, reader, batch_size).predict(SOURCES)
    for prediction, expected in zip(predictor.predict([*SOURCES, "none"]), plain, strict=True):
        assert prediction["sum"] == pytest.approx(expected["sum"], abs=1e-5)
    drawn = sorted(folder.iterdir())
    assert [file.name[:5] for file in drawn] == ["0000-", "0001-", "0002-", "0003-", "0004-"]
    for file, source in zip(drawn, SOURCES, strict=True):
        written, layers = json.loads(file.read_text())
        assert written == source
        _, attentions = module.model(reader.collate([reader.read(source)]), return_attention=True)
        for layer, expected in zip(layers, input_attention(attentions), strict=True):
            assert layer == pytest.approx(expected[0].tolist(), abs=1e-6)
            assert sum(layer) == pytest.approx(1)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("photos/my cat.jpeg", "0000-my-cat"),
        ("I liked it. Very much", "0000-I-liked-it"),
        ("either/or, and/or not", "0000-or-not"),
        ("an endless text " * 50 + "with an end. There", "0000-" + ("an-endless-text-" * 3)[:40]),
        ("naïve\0text/", "0000-naïve-text"),
        ("...", "0000-input"),
        ("", "0000-input"),
    ],
)
def test_picture_is_named_after_the_input(module, tmp_path, source, name):
    class AnyReader(NumbersReader):
        def read(self, source: str) -> list[float]:
            return [1.0, 2.0]

    SumPredictor(module, AnyReader({}, None), attention=str(tmp_path)).predict([source])
    (file,) = tmp_path.iterdir()
    assert file.name == f"{name}.json"


def test_invalid_attention_folder_is_reported(module, reader, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^attention='.*file': the folder cannot be created \(File exists\)$"):
        SumPredictor(module, reader, attention=str(tmp_path / "file")).predict(["1"])


def test_attention_needs_a_reader_with_draw_attention(module, tmp_path):
    class PlainReader(NumbersReader):
        draw_attention = Reader.draw_attention

    folder = tmp_path / "new" / "maps"
    with pytest.raises(UserError, match=r"^--attention: not available for this kind of input"):
        SumPredictor(module, PlainReader({}, None), attention=str(folder)).predict(["1"])
    assert [*tmp_path.iterdir()] == []


def test_maps_drawn_before_a_failure_are_kept(module, tmp_path):
    class FailingReader(NumbersReader):
        def draw_attention(self, source, example, weights, path: Path) -> Path:
            if source == "2":
                raise UserError("2: cannot be drawn")
            return super().draw_attention(source, example, weights, path)

    with pytest.raises(UserError, match=r"^2: cannot be drawn$"):
        SumPredictor(module, FailingReader({}, None), attention=str(tmp_path / "maps")).predict(["1", "2"])
    assert [file.name for file in (tmp_path / "maps").iterdir()] == ["0000-1.json"]


def test_batch_size_must_be_positive(module, reader):
    with pytest.raises(UserError, match="batch_size=0 must be at least 1"):
        SumPredictor(module, reader, 0)
