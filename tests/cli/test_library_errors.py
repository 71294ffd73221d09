"""Complaints of Lightning and missing packages are one line."""

from __future__ import annotations

import importlib.util
from email.message import Message
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from perceiver_cli.library_errors import explain, missing_package


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            "Requirement 'wandb>=0.12.10' not met. HINT: Try running `pip install -U 'wandb>=0.12.10'`",
            "this: needs wandb, which is not installed (pip install 'wandb>=0.12.10')",
        ),
        (
            "`DeviceStatsMonitor` cannot log CPU stats as `psutil` is not installed. Requirement 'psutil' not met.",
            "DeviceStatsMonitor: needs psutil, which is not installed (pip install psutil)",
        ),
        (
            "To use the `DeepSpeedStrategy`, you must have it. Install it by running `pip install -U deepspeed`.",
            "DeepSpeedStrategy: needs deepspeed, which is not installed (pip install deepspeed)",
        ),
        (
            "Problem with given class_path 'pytorch_lightning.loggers.MLFlowLogger': Requirement 'mlflow' not met.",
            "MLFlowLogger: needs mlflow, which is not installed (pip install mlflow)",
        ),
        (
            "No module named 'no_package.part'",
            "this: needs no_package, which is not installed (pip install no_package)",
        ),
        (
            "Neither `no_board` nor `no_boardX` is available. Try `pip install`ing either.",
            "this: needs no_board, which is not installed (pip install no_board)",
        ),
        ("Invalid learning rate: -1", None),
    ],
)
def test_missing_package_is_reported_with_pip_command(message, line):
    assert missing_package(message) == line


def test_errors_of_other_code_are_not_explained():
    with pytest.raises(AttributeError) as ours:
        raise AttributeError("a fault of ours")
    with pytest.raises(ImportError) as missing_name:
        from perceiver_cli import no_such_name  # noqa: F401
    assert explain(ours.value) is None
    assert explain(missing_name.value) is None


class Codec(NamedTuple):
    name: str

    def load(self) -> None:
        raise ModuleNotFoundError(f"No module named {self.name!r}", name=self.name)


class Reader:
    def read(self) -> None:
        Codec("acme_codec").load()


def test_optional_dependency_comes_with_its_extra(monkeypatch):
    metadata = {"entry_points": [SimpleNamespace(group="perceiver")], "requires": ["acme-codec>=2; extra == 'sound'"]}
    names = Message()
    names["Name"], names["Provides-Extra"] = "acme", "sound"
    installed = SimpleNamespace(metadata=names, **metadata)
    monkeypatch.setattr("perceiver_registry.extras.distributions", lambda: [installed])
    with pytest.raises(ModuleNotFoundError) as missing:
        Reader().read()
    assert explain(missing.value) == "Reader: needs acme-codec, which is not installed (pip install 'acme[sound]')"


def absent(package: str) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "flags", "name"),
    [
        ("wandb", ["--trainer.logger=WandbLogger"], "WandbLogger"),
        ("mlflow", ["--trainer.logger=MLFlowLogger"], "MLFlowLogger"),
        ("comet_ml", ["--trainer.logger=CometLogger"], "CometLogger"),
        ("psutil", ["--trainer.callbacks=DeviceStatsMonitor"], "DeviceStatsMonitor"),
        ("deepspeed", ["--trainer.strategy=deepspeed"], "DeepSpeedStrategy"),
        ("deepspeed", ["--trainer.strategy=DeepSpeedStrategy"], "DeepSpeedStrategy"),
        ("transformer_engine", ["--trainer.precision=transformer-engine"], "TransformerEnginePrecision"),
    ],
)
def test_class_with_missing_package_is_reported(perceiver, small, package, flags, name):
    absent(package)
    error = perceiver("fit", *small, "--trainer.max_steps=1", *flags).error
    assert error.startswith(f"{name}: needs {package.replace('_ml', '-ml')}, which is not installed (pip install ")


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        (
            "--trainer.strategy=ModelParallelStrategy",
            "ModelParallelStrategy: When using the ModelParallelStrategy",
        ),
        ("--trainer.callbacks=BackboneFinetuning", "BackboneFinetuning: 'LitLanguageModel' object has no attribute"),
    ],
)
def test_error_of_lightning_names_its_class(perceiver, small, flag, line):
    assert perceiver("fit", *small, "--trainer.max_steps=1", flag).error.startswith(line)


def test_strategy_by_class_name(perceiver, small):
    flags = ["--trainer.strategy=SingleDeviceStrategy", "--trainer.strategy.device=cpu"]
    result = perceiver("fit", *small, "--trainer.max_steps=1", *flags)
    assert result.code == 0, result.err


def test_enum_defaults_are_saved(fit, small):
    folder = fit(*small, "--trainer.max_steps=1", "--trainer.callbacks=Timer")
    assert "interval: step" in (folder / "config.yaml").read_text()
