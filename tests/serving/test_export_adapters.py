"""Export of a small model with each registered adapter in both formats, compared with the original in other sizes.

Most of the time is spent on the layers of the Perceiver, so that few of the models have them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import cycle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from perceiver_core import AdaptedInput, Batch, Model, PerceiverConfig, PerceiverIO
from perceiver_plugins.classification.config import ClassificationDecoderConfig
from perceiver_plugins.multimodal.config import AudioVideoLabelDecoderConfig
from perceiver_plugins.multimodal.decoding import decode
from perceiver_plugins.sdk.tasks.batches import entries
from perceiver_plugins.serving.batches import example_batch
from perceiver_plugins.serving.checking import checks
from perceiver_plugins.serving.exporting import Backend, build_checked_program
from perceiver_plugins.serving.programs import Programs
from perceiver_plugins.text.config import TextEncoderConfig
from perceiver_registry import AdapterSpec, assemble, registry
from perceiver_registry.formats import largest_difference
from perceiver_registry.testing.subjects import AdapterSubject

TOLERANCE = 1e-5

DYNAMIC_SIZES = {
    "audio-patches": {"batch", "samples"},
    "audio-spectrogram": {"batch", "samples"},
    "composite": {"batch", "length", "height", "width"},
    "flow-patches": {"batch", "height", "width"},
    "image-conv": {"batch", "height", "width"},
    "image-learned": {"batch", "height", "width"},
    "image-patches": {"batch", "height", "width"},
    "image-pixels": {"batch", "height", "width"},
    "image-stages": {"batch", "height", "width"},
    "image-timm": {"batch", "height", "width"},
    "table": {"batch"},
    "text": {"batch", "length"},
    "video-patches": {"batch", "frames", "height", "width"},
}
"""Dynamic sizes by input adapter."""

IN_PERCEIVER = {"audio-video-label", "composite", "image-patches", "table", "text"}
"""Input adapters that are exported in a Perceiver. They cover the lengths of input arrays: a fixed one, a dynamic size
with padding, and products and sums of dynamic sizes. The autoencoder needs the Perceiver's decoder."""


class Pooling(Model):
    """Small architecture: the mean of the input array, mapped to the channels of the output queries and added to them.

    Args:
        model: model whose adapters and config it has.
    """

    def __init__(self, model: PerceiverIO):
        super().__init__()
        self.config = model.config
        self.input_adapter, self.output_adapter = model.input_adapter, model.output_adapter
        self.last = nn.Linear(
            self.input_adapter.num_input_channels, self.output_adapter.query_provider.num_query_channels
        )

    def compute(self, adapted: AdaptedInput, queries: Tensor) -> Tensor:
        real = torch.ones_like(adapted.x[..., :1])
        if adapted.pad_mask is not None:
            real = real.masked_fill(adapted.pad_mask[..., None], 0.0)
        mean = (adapted.x * real).sum(dim=1) / real.sum(dim=1)
        return queries + self.last(mean)[:, None]


def pair_adapters() -> Iterator[tuple[AdapterSpec, AdapterSpec]]:
    """Pair each input adapter with its plugin's output adapter or, in turn, the remaining ones; none is left out."""
    inputs, outputs = registry().entries("input"), registry().entries("output")
    partners = {}
    for output in outputs:
        same_plugin = [entry for entry in inputs if entry.plugin == output.plugin]
        partners |= {entry.name: output for entry in same_plugin if entry.name == output.name or len(same_plugin) == 1}
    others = [output for output in outputs if output not in partners.values()]
    turns = cycle(others)
    pairs = [(entry.spec, (partners.get(entry.name) or next(turns)).spec) for entry in inputs]
    yield from pairs
    yield from ((inputs[0].spec, output.spec) for output in others if output.spec not in [spec for _, spec in pairs])


PAIRS = list(pair_adapters())


@pytest.mark.slow
@pytest.mark.parametrize(("input_spec", "output_spec"), PAIRS, ids=[f"{one.name}-{two.name}" for one, two in PAIRS])
def test_exported_models_equal_the_original_in_other_sizes(
    input_spec: AdapterSpec, output_spec: AdapterSpec, onnx_backend: Backend, randomise: Callable[[Any], Any]
) -> None:
    model: Model = AdapterSubject(output_spec, {}, partner=input_spec).model()
    if input_spec.name not in IN_PERCEIVER:
        model = Pooling(model).eval()
    check_exports(randomise(model), input_spec.name, onnx_backend)


@pytest.mark.slow
def test_exported_classifier_with_ngrams_and_pooling(onnx_backend: Backend, randomise: Callable[[Any], Any]) -> None:
    encoder = TextEncoderConfig(1, num_self_attention_heads=1, vocab_size=30, max_seq_len=9, num_input_channels=6)
    encoder.max_ngram_length, encoder.num_ngram_buckets, encoder.token_dropout = 3, 11, 0.5
    encoder.num_subword_buckets = 13
    decoder = ClassificationDecoderConfig(1, num_classes=3, num_output_query_channels=5, pool_inputs=True)
    config = PerceiverConfig(encoder, decoder, num_latents=4, num_latent_channels=8)
    model = randomise(assemble(config)).eval()
    model.input_adapter.subword_embedding.buckets.random_(13)
    check_exports(model, "text", onnx_backend)


def check_exports(model: Model, input_name: str, onnx_backend: Backend) -> None:
    """Compare a model's exports in both formats with the model."""
    traced, built, checked = build_checked_program(onnx_backend, model)

    assert [port.name for port in traced.inputs] == [name for name, _ in entries(example_batch(model, 1))]
    assert all(port.shape[0] == "batch" for port in (*traced.inputs, *traced.outputs))
    assert set(traced.sizes) >= DYNAMIC_SIZES.get(input_name, {"batch"})

    programs = Programs()
    runs = {"onnx": onnx_backend.run(built), "torch-export": programs.run(programs.build(traced))}
    for check in (*checked, *checks(model, traced, runs["torch-export"])):
        assert check.difference < TOLERANCE, check
    assert {name for check in checked for name in check.sizes} == set(traced.sizes)

    batch = example_batch(model, 4)
    if isinstance(model.config.decoder, AudioVideoLabelDecoderConfig):
        for run in runs.values():
            check_decoded_outputs(model, batch, run(batch))
        return
    with torch.no_grad():
        expected = model(batch) * getattr(model.config.decoder, "flow_scale_factor", 1.0)
        found = [*runs["onnx"](batch).values(), *runs["torch-export"](batch).values()]
    for output in found:
        by_position = output if output.shape == expected.shape else output.flatten(2).transpose(1, 2)
        assert largest_difference(expected, by_position) < TOLERANCE
    assert len(found) == 2


@torch.no_grad()
def check_decoded_outputs(model: Model, batch: Batch, outputs: Mapping[str, Tensor]) -> None:
    """Compare the outputs of an exported autoencoder of clips with the decoded ones."""
    expected = decode(model, batch)
    torch.testing.assert_close(outputs["audio"], expected["audio"].flatten(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs["logits"], expected["label"][:, 0], rtol=1e-4, atol=1e-5)
    video = outputs["video"]  # (b, frames, 3, h, w)
    assert video.shape == batch["pixel_values_videos"].shape
    torch.testing.assert_close(video.movedim(2, -1).flatten(1, 3), expected["image"], rtol=1e-4, atol=1e-5)
