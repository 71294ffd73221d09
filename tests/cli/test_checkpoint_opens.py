"""Commands open their checkpoint once, and release its content."""

from __future__ import annotations

import builtins
import os
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from perceiver_cli.checkpoints import LastCheckpoint

COMMANDS = {
    "fit": ["--ckpt_path={source}", "--trainer.max_epochs=4"],
    "validate": ["--ckpt_path={source}"],
    "test": ["--ckpt_path={source}", "--data.test_files={table}"],
    "predict": ["--ckpt_path={source}", "--format=json", "{table}"],
    "convert": ["{source}", "written.safetensors"],
    "export": ["--ckpt_path={source}", "--output=written.pt2"],
}


@pytest.fixture
def opens(monkeypatch):
    """Count how often a file is read: by torch.load, and by any ``open``."""

    def count(path: Path) -> dict[str, int]:
        counts = {"torch.load": 0, "open": 0}

        def is_it(file: Any) -> bool:
            name = file if isinstance(file, str | os.PathLike) else getattr(file, "name", None)
            return isinstance(name, str | os.PathLike) and Path(name).exists() and path.samefile(name)

        def counted(name: str, function: Any) -> Any:
            def call(file: Any, *args: Any, **options: Any) -> Any:
                counts[name] += is_it(file)
                return function(file, *args, **options)

            return call

        monkeypatch.setattr(torch, "load", counted("torch.load", torch.load))
        monkeypatch.setattr(builtins, "open", counted("open", open))
        return counts

    return count


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_command_opens_its_checkpoint_once(command, perceiver, regressor, table, opens):
    # A run's folder of its own: the run is resumed, with its logs.
    folder = shutil.copytree(regressor.folder, Path("logs/regression/version_0"))
    source = folder / "checkpoints" / "last.ckpt"
    counts = opens(source)
    result = perceiver(command, *(flag.format(source=source, table=table) for flag in COMMANDS[command]))
    assert result.code == 0, result.err
    assert counts == {"torch.load": 1, "open": 1}


@pytest.mark.slow
def test_resumed_run_frees_its_checkpoint_before_training(perceiver, regressor, monkeypatch):
    """Its file may be replaced while it trains, so that no tensor stays in the file, and none is kept twice."""
    restored, options = [], {}
    load, start = torch.load, LastCheckpoint.on_train_start

    def remember(*args: Any, **given: Any) -> Any:
        content = load(*args, **given)
        if isinstance(args[0], Path):
            options.update(given)
            restored.extend(weakref.ref(value) for value in content["state_dict"].values())
        return content

    def check(self: Any, *args: Any) -> None:
        assert len(restored) > 10
        assert not any(tensor() is not None for tensor in restored)
        start(self, *args)

    monkeypatch.setattr(torch, "load", remember)
    monkeypatch.setattr(LastCheckpoint, "on_train_start", check)
    result = perceiver("fit", f"--ckpt_path={regressor.last}", "--trainer.max_epochs=4")
    assert result.code == 0, result.err
    assert (options["mmap"], options["weights_only"]) == (False, True)
