"""Extra batch entries for output queries and the output adapter, from training to exported files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forecaster
import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from perceiver_core import Batch, PerceiverConfig
from perceiver_plugins.serving import export
from perceiver_registry import load_model
from perceiver_registry.testing import plugin_checks


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_PLUGIN_FILES", str(Path(forecaster.__file__)))


# A plugin in a single file imports torch; a packaged plugin would not.
@pytest.mark.parametrize("check", plugin_checks(forecaster, skip={"imports_are_light"}), ids=str)
def test_forecaster_passes_the_plugin_checks(check: Callable[[], None]) -> None:
    check()


def batches(number: int) -> Iterator[Batch]:
    """Generate batches of series of very different scales, whose future is proportional to the first covariate."""
    adapter = forecaster.SeriesInputAdapter(2)
    for seed in range(number):
        batch = dict(adapter.example_batch(8, torch.Generator().manual_seed(seed)))
        real = batch["attention_mask"] == 1
        scale = (batch["series"].abs() * real).sum(dim=1, keepdim=True) / real.sum(dim=1, keepdim=True)
        yield batch | {"labels": scale * batch["covariates"][..., 0]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[forecaster.LitForecaster, Path]:
    """Trained forecaster and its checkpoint."""
    folder = tmp_path_factory.mktemp("forecaster")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERCEIVER_PLUGIN_FILES", str(Path(forecaster.__file__)))
        torch.manual_seed(0)
        config = PerceiverConfig(*forecaster.configs(), num_latents=4, num_latent_channels=16)
        module = forecaster.LitForecaster(config, optimizer={"name": "AdamW", "lr": 0.02})
        trainer = Trainer(
            default_root_dir=folder,
            max_steps=60,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(list(batches(20)), batch_size=None))
        trainer.save_checkpoint(folder / "last.ckpt")
    return module.eval(), folder / "last.ckpt"


@pytest.mark.slow
def test_trained_forecaster_predicts_in_units_of_the_series(
    trained: tuple[forecaster.LitForecaster, Path], quiet_trainer: Callable[..., Trainer]
) -> None:
    module, checkpoint = trained
    unseen = list(batches(24))[20:]

    forecasts = quiet_trainer().predict(module, DataLoader(unseen, batch_size=None))

    for batch, forecast in zip(unseen, forecasts, strict=True):
        labels = batch["labels"]
        assert labels.abs().mean(dim=1).max() > 100 * labels.abs().mean(dim=1).min()
        errors = (forecast - labels).abs().mean(dim=1) / labels.abs().mean(dim=1)
        assert errors.max() < 0.5  # 1 without the covariates or without the scale
    torch.testing.assert_close(load_model(str(checkpoint))(unseen[0]), forecasts[0])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_exported_forecaster_equals_the_original_for_any_batch_size(
    suffix: str, trained: tuple[forecaster.LitForecaster, Path], tmp_path: Path
) -> None:
    if suffix == ".onnx":
        onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    module, checkpoint = trained
    target = str(tmp_path / f"forecaster{suffix}")

    description = export(str(checkpoint), target)

    assert [port["name"] for port in description["inputs"]] == ["series", "attention_mask", "covariates"]
    (output,) = description["outputs"]
    assert output["name"] == "forecast"
    assert output["shape"][0] == "batch"
    json.dumps(description)
    if suffix == ".onnx":
        session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])

        def run(batch: Batch) -> Any:
            (forecast,) = session.run(None, {name: value.numpy() for name, value in batch.items()})
            return torch.from_numpy(np.asarray(forecast))
    else:
        program = torch.export.load(target).module()

        def run(batch: Batch) -> Any:
            return program(batch)["forecast"]

    for batch_size in (1, 2, 7):
        batch = module.model.input_adapter.example_batch(batch_size, torch.Generator().manual_seed(batch_size))
        with torch.no_grad():
            expected = module.model(batch)
        assert ((run(batch) - expected).abs().amax(dim=1) < 1e-5 * expected.abs().amax(dim=1)).all()
