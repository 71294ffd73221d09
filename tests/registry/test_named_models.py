"""Named models: availability and parameter counts."""

from __future__ import annotations

import pytest
import torch

from perceiver_cli.values import nest
from perceiver_registry import assemble, config_from_dict, registry

PUBLISHED = {
    "language-perceiver": 201_108_230,
    "language-perceiver-classifier": 206_098_690,
    "vision-perceiver-fourier": 48_440_627,
    "vision-perceiver-learned": 62_255_848,
    "vision-perceiver-conv": 48_646_522,
    "mnist-classifier": 907_212,
}


def test_published_models_are_registered():
    assert set(PUBLISHED) <= {entry.name for entry in registry().entries("model")}


@pytest.mark.parametrize("entry", registry().entries("model"), ids=lambda entry: entry.name)
def test_parameter_count_matches_the_spec(entry):
    with torch.device("meta"):
        model = assemble(config_from_dict(nest(entry.spec.config)))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert num_parameters == entry.spec.num_parameters
    assert num_parameters == PUBLISHED.get(entry.name, num_parameters)
