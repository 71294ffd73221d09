"""Valid adapters, and faulty ones that each violate a single check of the contract."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import default_collate

from perceiver_core import (
    AdaptedInput,
    DecoderConfig,
    EncoderConfig,
    InputAdapter,
    OutputAdapter,
    PositionLayout,
    QueryProvider,
    TrainableQueryProvider,
)
from perceiver_core.config import require_positive
from perceiver_plugins.sdk.data import PadCollator
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_registry import AdapterSpec, SizedDefaults

# Valid adapters


@dataclass
class FramesEncoderConfig(EncoderConfig):
    """Encoder of spectrogram frames.

    Args:
        num_bins: number of frequency bins per frame.
        max_frames: maximum length of a sequence.
    """

    num_bins: int = 5
    max_frames: int = 7

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_bins", "max_frames")


class Frames(InputAdapter):
    """Input adapter of padded floating point sequences."""

    is_causal = True

    def __init__(self, num_bins: int, max_frames: int):
        super().__init__(num_input_channels=8)
        self.linear = nn.Linear(num_bins, 8)
        self.positions = nn.Parameter(torch.randn(max_frames, 8))
        self.register_buffer("window", torch.linspace(0.5, 2.0, num_bins), persistent=False)

    @classmethod
    def from_config(cls, config):
        return cls(config.num_bins, config.max_frames)

    def position_layout(self):
        return PositionLayout(self.positions, self.positions)

    def check_data(self, data):
        theirs = getattr(data, "num_bins", None)
        if theirs not in (None, self.linear.in_features):
            raise ValueError(f"num_bins={theirs}")

    def example_batch(self, batch_size, generator):
        length, bins = len(self.positions), self.linear.in_features
        lengths = torch.randint(2, length + 1, (batch_size, 1), generator=generator)
        return {
            "frames": torch.randn(batch_size, length, bins, generator=generator),
            "attention_mask": (torch.arange(length) < lengths).long(),
        }

    def forward(self, batch):
        return AdaptedInput(self.embed(batch["frames"]), ~batch["attention_mask"].bool())

    def embed(self, frames):
        return self.linear(frames * self.window) + self.positions[: frames.shape[1]]


@dataclass
class NotesEncoderConfig(EncoderConfig):
    """Encoder of the notes of a melody.

    Args:
        num_pitches: number of pitches.
    """

    num_pitches: int = 11


class Notes(InputAdapter):
    """Input adapter of integer sequences of any length, without padding."""

    def __init__(self, num_pitches: int):
        super().__init__(num_input_channels=6)
        self.pitches = nn.Embedding(num_pitches, 6)

    @classmethod
    def from_config(cls, config):
        return cls(config.num_pitches)

    def example_batch(self, batch_size, generator):
        return {"notes": torch.randint(self.pitches.num_embeddings, (batch_size, 9), generator=generator)}

    def forward(self, batch):
        notes = batch["notes"]
        times = torch.linspace(-1, 1, notes.shape[1]).to(self.pitches.weight)
        return AdaptedInput(self.pitches(notes) + times[:, None])


@dataclass
class ChordsDecoderConfig(DecoderConfig):
    """Decoder of chords.

    Args:
        num_chords: number of chords.
    """

    num_chords: int = 4


class Chords(OutputAdapter):
    """Output adapter of a chord and its volume per position."""

    def __init__(self, queries: QueryProvider, num_chords: int):
        super().__init__(queries)
        self.linear = nn.Linear(queries.num_query_channels, num_chords + 1)

    @classmethod
    def from_config(cls, config, input_adapter):
        return cls(TrainableQueryProvider(5, 12, init_scale=1.0), config.num_chords)

    def forward(self, decoded):
        output = self.linear(decoded)
        return {"chord": output[..., 1:], "volume": output[..., 0]}


class ScaledFrames(Frames):
    """Input adapter of normalised frames, whose scale is in the context."""

    def forward(self, batch):
        scale = batch["frames"].abs().mean(dim=(1, 2), keepdim=True)
        return super().forward({**batch, "frames": batch["frames"] / scale})._replace(context={"scale": scale})


class ScaledChords(Chords):
    """Output adapter that reads the context of :class:`ScaledFrames`."""

    def forward(self, decoded):
        return self.linear(decoded)

    def apply_context(self, output, context):
        return output * context["scale"]


FRAMES = AdapterSpec(
    name="frames",
    kind="input",
    adapter="faults:Frames",
    config="faults:FramesEncoderConfig",
    summary="frames of a spectrogram",
    links={"num_bins": "num_bins"},
    reads=("frames", "attention_mask"),
    reader="faults:FramesReader",
    example={"model.encoder.num_bins": 3},
    size_rule="faults:frames_rule",
)
NOTES = AdapterSpec("notes", "input", "faults:Notes", "faults:NotesEncoderConfig", "a melody", reads=("notes",))
CHORDS = AdapterSpec("chords", "output", "faults:Chords", "faults:ChordsDecoderConfig", "chords", tasks=("harmony",))


def frames_rule(datamodule, task, values):
    """Size rule with a default for data of unknown size."""
    return SizedDefaults("unknown number of recordings", {"model.encoder.max_frames": 7, "trainer.max_epochs": 3})


def failing_rule(datamodule, task, values):
    """Size rule that expects an attribute."""
    return frames_rule(datamodule.num_train_examples, task, values)


def misspelt_rule(datamodule, task, values):
    """Size rule with the default of a field that does not exist."""
    return SizedDefaults("unknown number of recordings", {"model.encoder.max_frame": 7})


def data_rule(datamodule, task, values):
    """Size rule with the default of an option of the data."""
    return SizedDefaults("unknown number of recordings", {"data.batch_size": 7})


class FramesReader(Reader):
    """Reader of examples written as a number of frames."""

    @classmethod
    def example(cls, input_adapter, folder):
        return cls({}, input_adapter), ["2", "5"]

    def read(self, source):
        return {"frames": torch.zeros(int(source), 3)}

    def collate(self, examples):
        return PadCollator(masks={"frames": "attention_mask"})(examples)


# Faults of specs and configs


class UnfinishedReader(Reader):
    def read(self, source):
        return source


class UnpaddedReader(FramesReader):
    def collate(self, examples):
        return default_collate(examples)


class UnmaskedReader(FramesReader):
    def collate(self, examples):
        batch = super().collate(examples)
        return {"frames": batch["frames"]}


class UndecoratedConfig(FramesEncoderConfig):
    window: str = "hann"


@dataclass
class CarelessConfig(FramesEncoderConfig):
    """Config that does not call the base class's ``__post_init__``."""

    def __post_init__(self) -> None:
        require_positive(self, "num_bins")


@dataclass
class TupleConfig(FramesEncoderConfig):
    """Config with a tuple, which YAML reads as a list.

    Args:
        band: lowest and highest frequency.
    """

    band: tuple[int, int] = (20, 4000)


@dataclass
class UndocumentedConfig(FramesEncoderConfig):
    """Encoder of frames."""

    window: str = "hann"


# Faults of input adapters


class NeedsMore(Frames):
    @classmethod
    def from_config(cls, config, vocabulary):
        return cls(config.num_bins, config.max_frames)


class ChangesConfig(Frames):
    @classmethod
    def from_config(cls, config):
        config.max_frames += 1
        return cls(config.num_bins, config.max_frames)


class NoExample(Frames):
    def example_batch(self, batch_size, generator):
        return InputAdapter.example_batch(self, batch_size, generator)


class DrawsElsewhere(Frames):
    def example_batch(self, batch_size, generator):
        return super().example_batch(batch_size, torch.default_generator)


class AlwaysFour(Frames):
    def example_batch(self, batch_size, generator):
        return super().example_batch(4, generator)


class ForgetsPositions(Frames):
    """Adapter with more channels than ``num_input_channels``."""

    def embed(self, frames):
        return torch.cat([super().embed(frames), frames[..., :1]], dim=-1)


class Squeezes(Frames):
    """Adapter that squeezes the batch dimension of a single example."""

    def embed(self, frames):
        return super().embed(frames).squeeze()


class NumbersAsMask(Frames):
    def forward(self, batch):
        return AdaptedInput(self.embed(batch["frames"]), 1 - batch["attention_mask"])


class ScaleWithoutPositions(Frames):
    def forward(self, batch):
        return super().forward(batch)._replace(context={"scale": batch["frames"].abs().mean(dim=(1, 2))})


class ReturnsTensor(Frames):
    def forward(self, batch):
        return self.embed(batch["frames"])


class Logarithm(Frames):
    def embed(self, frames):
        return super().embed(frames.log())


class OptionalMask(Frames):
    def forward(self, batch):
        mask = batch.get("attention_mask")
        return AdaptedInput(self.embed(batch["frames"]), None if mask is None else ~mask.bool())


class ToleratesNone(Frames):
    def forward(self, batch):
        frames, mask = batch.get("frames"), batch.get("attention_mask")
        return AdaptedInput(self.embed(frames), ~mask.bool())


class AsksData(Frames):
    def check_data(self, data):
        if data.num_bins != self.linear.in_features:
            raise ValueError(f"num_bins={data.num_bins}")


class RefusesItsOwn(Frames):
    def check_data(self, data):
        if getattr(data, "num_bins", None) == self.linear.in_features:
            raise ValueError(f"num_bins={data.num_bins}")


class Noise(Frames):
    def embed(self, frames):
        return super().embed(frames + 0.1 * torch.randn_like(frames))


class WritesToBatch(Frames):
    def forward(self, batch):
        batch["frames"].mul_(0.5)
        return super().forward(batch)


class TakesFromBatch(Frames):
    def forward(self, batch):
        batch.setdefault("lengths", batch["attention_mask"].sum(dim=1))
        return super().forward(batch)


class BatchStatistics(Frames):
    def embed(self, frames):
        return super().embed(frames - frames.mean(dim=0))


class AddsNextFrame(Frames):
    """Adapter that declares to be causal, and adds the next frame."""

    def forward(self, batch):
        frames = batch["frames"] * batch["attention_mask"][..., None]
        following = torch.cat([frames[:, 1:], torch.zeros_like(frames[:, :1])], dim=1)
        return AdaptedInput(self.embed(frames + following), ~batch["attention_mask"].bool())


class NormalisesPadding(Frames):
    """Adapter whose mean over time includes padded frames."""

    is_causal = False

    def embed(self, frames):
        return super().embed(frames - frames.mean(dim=1, keepdim=True))


class InvertedMask(Frames):
    def forward(self, batch):
        return AdaptedInput(self.embed(batch["frames"]), batch["attention_mask"].bool())


class IgnoresMask(Frames):
    def forward(self, batch):
        return AdaptedInput(self.embed(batch["frames"] + 0 * batch["attention_mask"][..., None]))


class CountsPadding(Frames):
    """Positions relative to the padded length of the batch."""

    is_causal = False

    def forward(self, batch):
        adapted = super().forward(batch)
        return adapted._replace(
            x=adapted.x + torch.outer(torch.linspace(0, 1, adapted.x.shape[1]), torch.arange(8.0)).to(adapted.x)
        )


class SinglePrecision(Frames):
    def embed(self, frames):
        return super().embed(frames) + torch.linspace(0, 1, 8, device=frames.device)


class FillsIn(Frames):
    """Adapter that writes low-precision results into an array of the input's dtype."""

    def forward(self, batch):
        real = batch["attention_mask"].bool()
        x = torch.zeros(*real.shape, 8, dtype=batch["frames"].dtype, device=real.device)
        x[real] = self.linear(batch["frames"] * self.window)[real]
        return AdaptedInput(x + self.positions[: x.shape[1]], ~real)


class KeepsTensor(Frames):
    def __init__(self, *args):
        super().__init__(*args)
        self.order = {"backwards": torch.arange(self.linear.in_features).flip(0)}

    def embed(self, frames):
        return super().embed(frames[..., self.order["backwards"]])


class MakesOnCpu(Frames):
    def embed(self, frames):
        return super().embed(frames) + torch.zeros(8, dtype=frames.dtype)


class ForgetsState(Frames):
    def __init__(self, *args):
        super().__init__(*args)
        self.register_buffer("window", torch.rand(self.linear.in_features), persistent=False)


class HoldsFunction(Frames):
    def __init__(self, *args):
        super().__init__(*args)
        self.activation = lambda x: x.tanh()

    def embed(self, frames):
        return self.activation(super().embed(frames))


class UnusedParameter(Frames):
    def __init__(self, *args):
        super().__init__(*args)
        self.scale = nn.Parameter(torch.ones(8))


class Detaches(Frames):
    def embed(self, frames):
        return self.linear(frames).detach() + self.positions[: frames.shape[1]]


class InfiniteGradient(Frames):
    """Adapter with a square root at zero."""

    def embed(self, frames):
        x = super().embed(frames)
        return x + (x - x).abs().sqrt()


class ComputedTable(Frames):
    def position_layout(self):
        return PositionLayout(self.positions, 1.0 * self.positions)


class DependsOnValues(Frames):
    def embed(self, frames):
        return super().embed(frames if frames.sum() > 0 else -1 * -frames)


class KnowsBatchSize(Frames):
    """Adapter with a branch on the batch size."""

    def embed(self, frames):
        return super().embed(frames if len(frames) == 3 else 1.0 * frames)


class FastPath(Frames):
    """Adapter whose branch for the compiler omits the positions."""

    def embed(self, frames):
        return self.linear(frames * self.window) if torch.compiler.is_dynamo_compiling() else super().embed(frames)


# Faults of output adapters


class NoQueries(Chords):
    def __init__(self, queries, num_chords):
        super().__init__(queries, num_chords)
        self.query_provider = nn.Identity()
        self.query_provider.num_query_channels = queries.num_query_channels


class WholeQueries(TrainableQueryProvider):
    def forward(self, adapted, positions=None):
        return self.queries[None]


class IgnoresPositions(Chords):
    @classmethod
    def from_config(cls, config, input_adapter):
        return cls(WholeQueries(5, 12, init_scale=1.0), config.num_chords)


class MixesPositions(Chords):
    def forward(self, decoded):
        return self.linear(decoded).softmax(dim=-2)


class SqueezesPositions(Chords):
    def forward(self, decoded):
        return self.linear(decoded).squeeze(-2)


class WritesToDecoded(Chords):
    def forward(self, decoded):
        return self.linear(decoded.mul_(0.5))


class Decides(Chords):
    def forward(self, decoded):
        return self.linear(decoded).argmax(dim=-1)


class MakesNothing(Chords):
    def forward(self, decoded):
        return None


def _changed(spec: AdapterSpec, **fields: Any) -> AdapterSpec:
    return dataclasses.replace(spec, **fields)


def _input(adapter: type) -> AdapterSpec:
    return _changed(FRAMES, adapter=f"faults:{adapter.__name__}")


def _encoder(config: type) -> AdapterSpec:
    return _changed(FRAMES, config=f"faults:{config.__name__}")


def _output(adapter: type) -> AdapterSpec:
    return _changed(CHORDS, adapter=f"faults:{adapter.__name__}")


OPTIONAL_MASK = _changed(FRAMES, adapter="faults:OptionalMask", reads=("frames",))

FAULTS: list[tuple[str, AdapterSpec, str]] = [
    ("spec_is_complete", _changed(FRAMES, summary=" "), "summary=' '"),
    ("spec_is_complete", _changed(FRAMES, summary="two\nlines"), "two\\nlines"),
    ("spec_is_complete", _changed(CHORDS, tasks=()), "`tasks` is empty"),
    ("import_paths_resolve", _changed(FRAMES, adapter="no_such_module:Frames"), "No module named 'no_such_module'"),
    ("import_paths_resolve", _changed(FRAMES, reader="faults:read"), "reader='faults:read'"),
    ("classes_match_kind", _changed(FRAMES, adapter="faults:Chords"), "not a subclass of InputAdapter"),
    ("classes_match_kind", _changed(CHORDS, config="faults:FramesEncoderConfig"), "not a subclass of DecoderConfig"),
    ("classes_match_kind", _encoder(UndecoratedConfig), "not decorated with @dataclass"),
    ("reader_is_valid", _changed(FRAMES, reader="faults:UnfinishedReader"), "does not implement collate"),
    ("reader_is_valid", _changed(FRAMES, reader="faults:Frames"), "no method 'expand'"),
    ("reader_fits_adapter", _changed(FRAMES, reader="faults:UnpaddedReader"), "stack expects each tensor"),
    ("reader_fits_adapter", _changed(FRAMES, reader="faults:UnmaskedReader"), "KeyError: 'attention_mask'"),
    ("size_rule_is_valid", _changed(FRAMES, size_rule="faults:failing_rule"), "fails: AttributeError"),
    ("size_rule_is_valid", _changed(FRAMES, size_rule="faults:misspelt_rule"), "'model.encoder.max_frame' is not a"),
    ("size_rule_is_valid", _changed(FRAMES, size_rule="faults:data_rule"), "'data.batch_size' cannot depend on"),
    ("linked_fields_exist", _changed(FRAMES, links={"bins": "num_bins"}), "'bins' is not a field"),
    ("example_builds_config", _changed(FRAMES, example={"model.encoder.bins": 3}), "'model.encoder.bins'"),
    ("example_builds_config", _changed(FRAMES, example={"num_bins": 3}), "flags begin with 'model.encoder.'"),
    ("example_builds_config", _changed(FRAMES, example={"model.encoder.num_bins": 0}), "must be at least 1"),
    ("config_validates_values", _encoder(CarelessConfig), "num_cross_attention_heads=0) is accepted"),
    ("config_is_plain_data", _encoder(TupleConfig), "band=(20, 4000) became [20, 4000]"),
    ("config_fields_are_flags", _encoder(UndocumentedConfig), "'window' is not documented"),
    ("builds_from_config", _input(NeedsMore), "missing 1 required positional argument: 'vocabulary'"),
    ("builds_from_config", _input(ChangesConfig), "max_frames=7 became 8"),
    ("builds_from_config", _output(NoQueries), "query_provider is Identity"),
    ("example_batch_is_valid", _input(NoExample), "NoExample.example_batch"),
    ("example_batch_is_valid", _input(DrawsElsewhere), "two generators with one seed"),
    ("example_batch_is_valid", _input(AlwaysFour), "batch_size=1 returns 4 examples"),
    ("input_array_has_expected_shape", _input(ForgetsPositions), "9 channels, num_input_channels says 8"),
    ("input_array_has_expected_shape", _input(Squeezes), "not floating point (b, m, c)"),
    ("input_array_has_expected_shape", _input(NumbersAsMask), "not booleans"),
    ("input_array_has_expected_shape", _input(ReturnsTensor), "forward returns Tensor"),
    (
        "input_array_has_expected_shape",
        _input(ScaleWithoutPositions),
        "context['scale'] is of shape (1,) for 1 examples",
    ),
    ("queries_have_expected_shape", _output(IgnoresPositions), "differ from all queries there"),
    ("output_is_finite", _input(Logarithm), "not finite"),
    ("output_is_finite", _output(MakesNothing), "has no tensors"),
    ("reads_match_spec", _changed(FRAMES, reads=("frames",)), "it reads attention_mask"),
    ("reads_match_spec", _changed(FRAMES, reads=()), "it reads attention_mask, frames"),
    (
        "reads_match_spec",
        _changed(NOTES, reads=("notes", "attention_mask")),
        "`reads` has attention_mask, which it does not read",
    ),
    ("missing_entry_is_named", _input(ToleratesNone), "raises TypeError"),
    ("accepts_matching_data", _input(AsksData), "rejects data with no attributes"),
    ("accepts_matching_data", _input(RefusesItsOwn), "rejects data with {'num_bins': 3}"),
    ("is_deterministic", _input(Noise), "two runs differ"),
    ("inputs_are_not_modified", _input(WritesToBatch), "modifies its argument in place"),
    ("inputs_are_not_modified", _input(TakesFromBatch), "to attention_mask, frames, lengths"),
    ("inputs_are_not_modified", _output(WritesToDecoded), "modifies its argument in place"),
    ("examples_are_independent", _input(BatchStatistics), "depends on the rest of its batch"),
    ("causal_inputs_are_independent", _input(AddsNextFrame), "the embedding of an input depends on others"),
    ("padding_is_ignored", _input(NormalisesPadding), "depend on the content of padding"),
    ("padding_is_ignored", _input(InvertedMask), "depend on the content of padding"),
    ("padding_is_ignored", _input(IgnoresMask), "depend on the content of padding"),
    ("embeddings_are_independent", _input(CountsPadding), "depends on the amount of padding after it"),
    ("positions_are_independent", _output(MixesPositions), "differs from the whole output"),
    ("positions_are_independent", _output(SqueezesPositions), "the shape is"),
    ("follows_dtype", _input(SinglePrecision), "after to(torch.bfloat16) the input array is torch.float32"),
    ("runs_in_mixed_precision", _input(FillsIn), "RuntimeError"),
    ("follows_device", _input(KeepsTensor), "KeepsTensor.order has a tensor"),
    ("follows_device", _input(MakesOnCpu), "on device 'meta' it fails"),
    ("state_dict_restores", _input(ForgetsState), "has another output"),
    ("can_be_copied", _input(HoldsFunction), "pickle fails"),
    ("gradients_flow", _input(UnusedParameter), "no gradient reaches scale"),
    ("gradients_flow", _input(Detaches), "linear.bias, linear.weight"),
    ("gradients_flow", _input(InfiniteGradient), "not finite"),
    ("gradients_flow", _output(Decides), "no gradient"),
    ("supports_local_init", _input(ComputedTable), "the layout's table is not a parameter"),
    ("exports", _input(DependsOnValues), "The contract"),
    ("exports", _input(KnowsBatchSize), "batch_size"),
    ("compiles", _input(FastPath), "the compiled adapter"),
]
"""Expected failing check, spec of the faulty adapter, and expected part of the message."""
