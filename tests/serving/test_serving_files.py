"""Exported files: their description, static sizes, and errors."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from perceiver_core import AdaptedInput, Batch, FourierPositions, Linear, PerceiverConfig, PerceiverIO
from perceiver_plugins.serving import OnnxFormat, export
from perceiver_plugins.serving.batches import example_batch, resize_batch
from perceiver_plugins.serving.exporting import Backend, build_checked_program
from perceiver_plugins.serving.programs import Programs
from perceiver_plugins.serving.tracing import trace
from perceiver_registry import LoadedModel, ModelDescription, UserError, write_model
from perceiver_registry.testing.partners import (
    NumbersDecoderConfig,
    NumbersOutputAdapter,
    VectorsEncoderConfig,
    VectorsInputAdapter,
)

DESCRIPTION = ModelDescription(
    task="image-classification",
    model={"decoder": {"adapter": "classification", "label_names": ["cat", "dog", "no pet: Ä"]}},
    data={"image_size": (8, 8), "mean": [0.5], "std": [0.25]},
    run={"data": {"path": "/home/me/photos"}},
)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_file_has_a_description(suffix: str, tmp_path: Path, small_model: Any) -> None:
    model = small_model("image-pixels", "classification")
    target = tmp_path / f"pets{suffix}"
    if suffix == ".onnx":
        onnx = pytest.importorskip("onnx", reason="onnx is not installed")
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

    written = export(LoadedModel(model, DESCRIPTION), target)

    if suffix == ".onnx":
        properties = {entry.key: entry.value for entry in onnx.load(target).metadata_props}
        found = json.loads(properties["perceiver"])
        graph = onnx.load(target).graph
        sizes = [size.dim_param or size.dim_value for size in graph.input[0].type.tensor_type.shape.dim]
        assert sizes == ["batch", 1, "height", "width"]
        assert [value.name for value in graph.output] == ["logits"]
    else:
        extra_files = {"perceiver.json": ""}
        torch.export.load(target, extra_files=extra_files)
        found = json.loads(extra_files["perceiver.json"])
    assert found == written
    assert found["model"]["decoder"]["label_names"] == ["cat", "dog", "no pet: Ä"]
    assert found["data"] == {"image_size": [8, 8], "mean": [0.5], "std": [0.25]}
    assert found["task"] == "image-classification"
    assert "run" not in found  # it has local paths
    assert found["inputs"] == [{"name": "pixel_values", "type": "float32", "shape": ["batch", 1, "height", "width"]}]
    assert found["outputs"] == [{"name": "logits", "type": "float32", "shape": ["batch", 3]}]
    assert found["sizes"] == {"batch": [1, None], "height": [1, None], "width": [1, None]}
    assert {"batch": 1} in [check["sizes"] for check in found["checked"]]
    assert all(check["difference"] < 1e-5 for check in found["checked"])
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


@pytest.mark.slow
def test_existing_file_is_only_overwritten_on_request(tmp_path: Path, small_model: Any) -> None:
    model = small_model("table", "classification")
    target = tmp_path / "model.pt2"
    target.write_text("mine")

    with pytest.raises(UserError, match=r"model\.pt2: already exists"):
        export(model, target)
    assert target.read_text() == "mine"

    export(model, target, overwrite=True)
    (output,) = torch.export.load(target).module()(example_batch(model, 5)).values()
    torch.testing.assert_close(output, model(example_batch(model, 5)), rtol=1e-4, atol=1e-5)


def test_unknown_suffix_is_reported(tmp_path: Path, small_model: Any) -> None:
    with pytest.raises(UserError, match=r"model\.bin: unknown suffix of a format for serving \(use \.onnx or \.pt2\)"):
        export(small_model("table", "classification"), tmp_path / "model.bin")


def test_missing_package_is_reported_before_export(tmp_path: Path, small_model: Any, monkeypatch: Any) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name == "onnxruntime" else find_spec(name, *args)
    )
    loaded = LoadedModel(small_model("table", "classification"), ModelDescription("", {}))

    assert "pip install 'perceiver-zoo[onnx]'" in str(OnnxFormat().refusal(loaded))
    with pytest.raises(UserError, match="needs onnxruntime: pip install"):
        write_model(loaded, str(tmp_path / "model.onnx"))


# Adapters that limit the export


def model_with(adapter_type: type[VectorsInputAdapter]) -> PerceiverIO:
    encoder = VectorsEncoderConfig(num_cross_attention_heads=1, num_self_attention_heads=1, init_scale=0.3)
    encoder.num_self_attention_layers_per_block = 1
    decoder = NumbersDecoderConfig(num_cross_attention_heads=1, init_scale=0.3)
    config = PerceiverConfig(encoder, decoder, num_latents=3, num_latent_channels=8)
    return PerceiverIO(config, adapter_type.from_config(encoder), NumbersOutputAdapter()).eval()


class StaticBatchAdapter(VectorsInputAdapter):
    def forward(self, batch: Batch) -> AdaptedInput:
        x, pad_mask, _ = super().forward(batch)
        return AdaptedInput(torch.stack([x[index] for index in range(len(x))]), pad_mask)


@pytest.mark.slow
def test_static_batch_size_is_one() -> None:
    model = model_with(StaticBatchAdapter)

    program = build_checked_program(Programs(), model)

    assert program.traced.inputs[0].shape[0] == 1
    batch = example_batch(model, 1)
    (output,) = program.traced.program.module()(batch).values()
    torch.testing.assert_close(output, model(batch), rtol=1e-4, atol=1e-5)


class WrongForOtherSizesAdapter(VectorsInputAdapter):
    def forward(self, batch: Batch) -> AdaptedInput:
        x, pad_mask, _ = super().forward(batch)
        number = 6 if torch.compiler.is_exporting() else x.shape[1]
        return AdaptedInput(x + x.sum(dim=1, keepdim=True) / number, pad_mask)


@pytest.mark.slow
def test_size_with_wrong_results_is_static() -> None:
    model = model_with(WrongForOtherSizesAdapter)
    assert trace(model).inputs[0].shape == ("batch", "features", 16)

    program = build_checked_program(Programs(), model)

    assert program.traced.inputs[0].shape == ("batch", 6, 16)
    assert all(check.passed for check in program.checked)


class WrongForAllSizesAdapter(VectorsInputAdapter):
    def forward(self, batch: Batch) -> AdaptedInput:
        x, pad_mask, _ = super().forward(batch)
        return AdaptedInput(-x if torch.compiler.is_exporting() else x, pad_mask)


class DataDependentAdapter(VectorsInputAdapter):
    def forward(self, batch: Batch) -> AdaptedInput:
        x, pad_mask, _ = super().forward(batch)
        return AdaptedInput(x if x.sum() > 0 else -x, pad_mask)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adapter_type", "message"),
    [
        (WrongForAllSizesAdapter, "the exported model fails, or differs from the original"),
        (DataDependentAdapter, "the model cannot be exported: "),
    ],
)
def test_failed_export_is_reported_in_one_line(
    adapter_type: type[VectorsInputAdapter], message: str, tmp_path: Path
) -> None:
    loaded = LoadedModel(model_with(adapter_type), ModelDescription("", {}))
    with pytest.raises(UserError, match=message) as error:
        write_model(loaded, str(tmp_path / "model.pt2"), "torch-export")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


class UnsupportedByOnnxAdapter(VectorsInputAdapter):
    def forward(self, batch: Batch) -> AdaptedInput:
        x, pad_mask, _ = super().forward(batch)
        return AdaptedInput(torch.special.bessel_j1(x), pad_mask)


@pytest.mark.slow
def test_operation_that_onnx_lacks_is_reported(onnx_backend: Backend) -> None:
    with pytest.raises(UserError, match="the model cannot be expressed in ONNX") as error:
        onnx_backend.build(trace(model_with(UnsupportedByOnnxAdapter)))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_models_are_exported_in_evaluation_mode(small_model: Any) -> None:
    model = small_model("image-conv", "classification").train()
    program = trace(model).program
    batch = example_batch(model, 2)
    torch.testing.assert_close(next(iter(program.module()(batch).values())), model.eval()(batch), rtol=1e-4, atol=1e-5)


def test_resize_batch() -> None:
    batch = {"text": {"ids": torch.tensor([[1, 2, 3], [4, 5, 6]])}, "name": "kept"}

    other = resize_batch(batch, {"text.ids": (None, 5)})

    assert other["text"]["ids"].tolist() == [[1, 2, 3, 1, 2], [4, 5, 6, 4, 5]]
    assert other["name"] == "kept"
    assert resize_batch(batch, {"text.ids": (1, 2)})["text"]["ids"].tolist() == [[1, 2]]


def test_linear_layers_are_exported_without_onednn() -> None:
    """The core's choice of a matmul library depends on the machine."""
    layer = Linear(512, 512).eval()
    with torch.no_grad():
        program = torch.export.export(layer, (torch.randn(2, 64, 512),))
    assert not any("mkldnn" in str(node.target) for node in program.graph.nodes)


class Positions(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return FourierPositions(5, (224, 224))((x.shape[0], x.shape[1]))


@pytest.mark.slow
def test_fourier_positions_with_dynamic_sizes() -> None:
    auto = torch.export.Dim.AUTO
    program = torch.export.export(Positions(), (torch.ones(6, 8),), dynamic_shapes=({0: auto, 1: auto},)).module()
    for shape in ((6, 8), (1, 1), (2, 1), (7, 224), (33, 2)):
        # A rounding error of a position grows with the frequency, up to 112 cycles.
        torch.testing.assert_close(program(torch.ones(shape)), Positions()(torch.ones(shape)), rtol=0, atol=1e-4)
