"""Every installed adapter in a small model, exported both ways and compared with the original in other sizes.

Adapters that are installed later are tested without an edit here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import pytest
import torch

from perceiver_core import PerceiverIO
from perceiver_plugins.serving.batches import entries, example
from perceiver_plugins.serving.checking import checks
from perceiver_plugins.serving.exporting import Backend, settle
from perceiver_plugins.serving.programs import Programs
from perceiver_registry import AdapterSpec, registry
from perceiver_registry.formats import largest_difference
from perceiver_registry.testing.subjects import AdapterSubject

TOLERANCE = 1e-5

OPEN = {
    "audio-patches": {"batch", "samples"},
    "composite": {"batch", "length", "height", "width"},
    "flow-patches": {"batch", "height", "width"},
    "image-conv": {"batch", "height", "width"},
    "image-learned": {"batch", "height", "width"},
    "image-patches": {"batch", "height", "width"},
    "image-pixels": {"batch", "height", "width"},
    "image-timm": {"batch", "height", "width"},
    "table": {"batch"},
    "text": {"batch", "length"},
    "video-patches": {"batch", "frames", "height", "width"},
}
"""Sizes that are open where the input is of one of these kinds."""


def pairs() -> Iterator[tuple[AdapterSpec, AdapterSpec]]:
    """Each input adapter with an output adapter: that of its own plugin, or the others in turns; each at least once."""
    inputs, outputs = registry().entries("input"), registry().entries("output")
    own = {}
    for output in outputs:
        at_home = [entry for entry in inputs if entry.plugin == output.plugin]
        own |= {entry.name: output for entry in at_home if entry.name == output.name or len(at_home) == 1}
    others = [output for output in outputs if output not in own.values()]
    turns = cycle(others)
    found = [(entry.spec, (own.get(entry.name) or next(turns)).spec) for entry in inputs]
    yield from found
    yield from ((inputs[0].spec, output.spec) for output in others if output.spec not in [spec for _, spec in found])


PAIRS = list(pairs())


@pytest.mark.parametrize(("input_spec", "output_spec"), PAIRS, ids=[f"{one.name}-{two.name}" for one, two in PAIRS])
def test_exported_models_compute_the_same_in_other_sizes(
    input_spec: AdapterSpec, output_spec: AdapterSpec, onnx_backend: Backend, randomise: Callable[[Any], Any]
) -> None:
    model: PerceiverIO = randomise(AdapterSubject(output_spec, {}, partner=input_spec).model())
    traced, built, done = settle(onnx_backend, model)

    assert [port.name for port in traced.inputs] == [name for name, _ in entries(example(model, 1))]
    assert all(port.shape[0] == "batch" for port in (*traced.inputs, *traced.outputs))
    assert set(traced.sizes) >= OPEN.get(input_spec.name, {"batch"})

    programs = Programs()
    runs = {"onnx": onnx_backend.run(built), "torch-export": programs.run(programs.build(traced))}
    for check in (*done, *checks(model, traced, runs["torch-export"])):
        assert check.difference < TOLERANCE, check
    assert {name for check in done for name in check.sizes} == set(traced.sizes)

    if output_spec.name == "audio-video-label":
        return  # served in another form, which has a test of its own
    batch = example(model, 4)
    with torch.no_grad():
        expected = model(batch) * getattr(model.config.decoder, "flow_scale_factor", 1.0)
        found = [*runs["onnx"](batch).values(), *runs["torch-export"](batch).values()]
    for answer in found:
        by_places = answer if answer.shape == expected.shape else answer.flatten(2).transpose(1, 2)
        assert largest_difference(expected, by_places) < TOLERANCE
    assert len(found) == 2
