"""Selection of the format to read or write a model in."""

from __future__ import annotations

import pytest
import torch

from perceiver_registry import FormatSpec, LoadedModel, UserError, create_model, describe, registry
from perceiver_registry.formats import format_for, largest_difference, open_source


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    model = create_model("mnist-classifier", num_latents=3, num_latent_channels=16).eval()
    return LoadedModel(model, describe("image-classification", model.config))


def test_file_suffix_selects_the_format(loaded):
    for target, name in (("a.ckpt", "checkpoint"), ("b/a.pt", "checkpoint"), ("a.safetensors", "safetensors")):
        assert format_for(loaded, target).name == name


def test_folder_uses_the_first_format_that_can_store_the_model(loaded):
    assert format_for(loaded, "folder").name == "zoo"
    assert format_for(loaded, "model-v1.5").name == "zoo"
    named = format_for(loaded, "folder", "perceiver-zoo:zoo")
    assert named.full_name == "perceiver-zoo:zoo"
    with pytest.raises(UserError, match="PerceiverForImageClassificationFourier cannot express this model"):
        format_for(loaded, "folder", "huggingface")


def test_formats_reject_unsupported_operations(loaded):
    for entry in registry().entries("format"):
        if not entry.spec.reads:
            with pytest.raises(UserError, match=f"format '{entry.name}' cannot be read; readable formats: "):
                open_source("anything", entry.name)
        if not entry.spec.writes:
            with pytest.raises(UserError, match=f"format '{entry.name}' cannot be written; writable formats: "):
                format_for(loaded, "anything", entry.name)


def test_missing_file_is_reported_by_the_format_of_its_suffix(tmp_path):
    with pytest.raises(UserError) as error:
        open_source(str(tmp_path / "a.ckpt"))
    assert str(error.value) == f"{tmp_path / 'a.ckpt'}: no such checkpoint"


def test_invalid_specs_are_rejected():
    with pytest.raises(ValueError, match="FormatSpec 'x': reads is 1, must be True or False"):
        FormatSpec("x", "x:X", "x", reads=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"FormatSpec 'x': suffixes is '.x', must be a tuple of names"):
        FormatSpec("x", "x:X", "x", reads=True, suffixes=".x")  # type: ignore[arg-type]


def test_differences_are_relative_to_the_largest_output_of_each_tensor():
    one, other = torch.tensor([4.0, -1.0]), torch.tensor([4.0, -1.5])
    assert largest_difference(one, other) == pytest.approx(0.125)
    assert largest_difference({"b": one, "a": one}, {"a": one, "b": other.numpy()}) == pytest.approx(0.125)
    assert largest_difference((one, 100 * one), [one, 100 * other]) == pytest.approx(0.125)
    assert largest_difference(one, one[None]) == float("inf")
    assert largest_difference([one], [one, one]) == float("inf")
    assert largest_difference(one, one * float("nan")) == float("inf")
