"""Checkpoints of runs with Lightning's callbacks and loggers: plain data that predicts and resumes."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
import yaml

CALLBACKS: dict[str, dict[str, object]] = {
    "DeviceStatsMonitor": {},
    "EarlyStopping": {"monitor": "val_loss", "patience": 5},
    "GradientAccumulationScheduler": {"scheduling": {0: 1, 1: 2}},
    "LearningRateMonitor": {"logging_interval": "step"},
    "ModelCheckpoint": {"monitor": "val_mae", "save_top_k": 2, "filename": "{epoch}-{val_mae:.2f}", "save_last": True},
    "ModelSummary": {"max_depth": 2},
    "OnExceptionCheckpoint": {"dirpath": "failed"},
    "RichModelSummary": {},
    "RichProgressBar": {},
    "StochasticWeightAveraging": {"swa_lrs": 0.01, "swa_epoch_start": 1},
    "TQDMProgressBar": {"refresh_rate": 2},
    "Timer": {"duration": {"minutes": 30}},
}
NEEDED = {"DeviceStatsMonitor": "psutil"}
LOGGERS: dict[str, object] = {
    "default": True,
    "CSVLogger": {"class_path": "CSVLogger", "init_args": {"save_dir": "csv"}},
    "two": [
        {"class_path": "CSVLogger", "init_args": {"save_dir": "two"}},
        {"class_path": "TensorBoardLogger", "init_args": {"save_dir": "two"}},
    ],
    "none": False,
}
COMBINATIONS = [(callback, [*LOGGERS][number % len(LOGGERS)]) for number, callback in enumerate(CALLBACKS)]
"""Each callback once, each logger several times."""

NEEDS_LOGGER = ("DeviceStatsMonitor", "LearningRateMonitor")


@pytest.fixture
def config(table):
    """Write a config file of a tiny run, and return the flag that uses it."""

    def config(callbacks: list[object], logger: object, **trainer: object) -> str:
        model = {"num_latents": 2, "num_latent_channels": 8}
        encoder = {"num_self_attention_layers_per_block": 1, "num_cross_attention_heads": 1, "num_input_channels": 8}
        values = {
            "task": "regression",
            "data": {"name": "table-files", "train_files": str(table), "label_column": ["y", "z"], "batch_size": 12},
            "model": {**model, "encoder": encoder, "decoder": {"num_output_query_channels": 8}},
            "trainer": {
                "accelerator": "cpu",
                "max_epochs": 2,
                "val_check_interval": 2,
                "enable_progress_bar": "ProgressBar" in str(callbacks),
                "enable_model_summary": False,
                "callbacks": callbacks,
                "logger": logger,
                **trainer,
            },
        }
        with open("run.yaml", "w", encoding="utf-8") as file:
            yaml.safe_dump(values, file)
        return "--config=run.yaml"

    return config


def last_checkpoint(result) -> str:
    assert result.code == 0, result.err
    (line,) = [line for line in result.out.splitlines() if line.startswith("Latest state: ")]
    return line.removeprefix("Latest state: ")


def spec(name: str) -> dict[str, object]:
    return {"class_path": name, "init_args": CALLBACKS[name]}


@pytest.mark.slow
@pytest.mark.parametrize(("callback", "logger"), COMBINATIONS)
def test_run_with_callback_and_logger_predicts_and_resumes(perceiver, config, table, callback, logger):
    if callback in NEEDED and importlib.util.find_spec(NEEDED[callback]) is None:
        pytest.skip(f"{NEEDED[callback]} is not installed")
    result = perceiver("fit", config([spec(callback)], LOGGERS[logger]))
    if callback in NEEDS_LOGGER and logger == "none":
        assert result.code == 2
        assert "that has no logger" in result.err.splitlines()[-1]
        return
    path = last_checkpoint(result)
    described = torch.load(path, weights_only=True)["perceiver"]["run"]["trainer"]
    assert described["callbacks"][0]["class_path"].endswith(callback)

    predicted = perceiver("predict", f"--ckpt_path={path}", str(table), "--format=json")
    assert predicted.code == 0, predicted.err
    assert len(json.loads(predicted.out)) == 40

    resumed = perceiver("fit", f"--ckpt_path={path}", "--trainer.max_epochs=3")
    assert torch.load(last_checkpoint(resumed), weights_only=True)["global_step"] > 3


def test_unreadable_callback_state_is_reported_before_training(perceiver, config):
    result = perceiver("fit", config([{"class_path": "stopping.Unreadable"}], True), "--allow=stopping")
    assert result.code == 2, result
    line = result.err.splitlines()[-1]
    assert "checkpoints of this run could not be read back: callbacks.Unreadable.state is of type Unreadable" in line


@pytest.mark.slow
def test_async_checkpoints_are_written(perceiver, config):
    result = perceiver("fit", config([], True, plugins=[{"class_path": "AsyncCheckpointIO"}]))
    assert torch.load(last_checkpoint(result), weights_only=True)["global_step"] == 6
