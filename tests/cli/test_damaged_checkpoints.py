"""Checkpoints with an entry of a wrong type or value: commands report them in one line or ignore the entry."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch

WRONG: list[Any] = [None, -3, "text", [1], {"a": 1}, torch.zeros(3), 1.5, 10**30]
COMMANDS = {
    "predict": ["--format=json", "{table}"],
    "validate": [],
    "convert": ["written.safetensors", "--overwrite"],
    "fit": ["--trainer.max_epochs=4"],
}
EVERY = {"predict": 131, "validate": 157, "convert": 113, "fit": 211}
"""One of so many combinations of entry and value is tried."""

CHOSEN = [
    ("fit", "optimizer_states.0.state.3.exp_avg", 5),
    ("fit", "optimizer_states.0.param_groups.0.lr", 2),
    ("fit", "lr_schedulers", 2),
    ("fit", "loops.fit_loop.epoch_progress.total.ready", 1),
    ("fit", "loops.fit_loop.epoch_loop.batch_progress.current", 0),
    ("fit", "perceiver.run.trainer", 3),
    ("fit", "perceiver.run.data.val_fraction", 0),
    ("validate", "perceiver.run.data.name", 0),
    ("validate", "perceiver.run.model.encoder", 0),
    ("fit", "perceiver.run.optimizer.name", 4),
    ("fit", "perceiver.seed", 2),
    ("fit", "callbacks", 0),
    ("fit", "hyper_parameters", 0),
    ("fit", "pytorch-lightning_version", 2),
    ("predict", "perceiver.model", 0),
    ("predict", "perceiver.model.num_latents", 2),
    ("predict", "perceiver.data", 3),
    ("predict", "perceiver.plugins.0.kind", 2),
    ("predict", "hyper_parameters.config", 2),
    ("predict", "state_dict", 0),
    ("validate", "state_dict.model.encoder.latents", 0),
    ("convert", "perceiver.model.encoder.num_self_attention_blocks", 4),
    ("convert", "perceiver.plugins.0.version", 5),
]


def entries(value: Any, name: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, child in children:
        yield (*name, key)
        yield from entries(child, (*name, key))


def with_entry(value: Any, name: tuple[Any, ...], new: Any) -> Any:
    if not name:
        return new
    if isinstance(value, tuple):
        return tuple(with_entry(list(value), name, new))
    changed = copy.copy(value)
    changed[name[0]] = with_entry(value[name[0]], name[1:], new)
    return changed


@pytest.fixture
def run_damaged(perceiver, regressor, table):
    """Run a command with a checkpoint in which one entry has another value."""

    def run_damaged(command: str, checkpoint: dict[str, Any], name: tuple[Any, ...], new: Any) -> None:
        torch.save(with_entry(checkpoint, name, new), "damaged.ckpt")
        source = "damaged.ckpt" if command == "convert" else "--ckpt_path=damaged.ckpt"
        result = perceiver(command, source, *(flag.format(table=table) for flag in COMMANDS[command]))
        where = f"{command}: {'.'.join(map(str, name))} = {new!r}: {result}"
        assert "Traceback" not in result.err, where
        assert result.code in (0, 2), where
        assert result.code == 0 or result.err.splitlines()[-1].startswith("perceiver: "), where

    return run_damaged


@pytest.fixture(scope="module")
def checkpoint(regressor) -> dict[str, Any]:
    return torch.load(regressor.last, weights_only=True)


def found(checkpoint: dict[str, Any], dotted: str) -> tuple[Any, ...]:
    return next(name for name in entries(checkpoint) if ".".join(map(str, name)) == dotted)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "dotted", "wrong"), CHOSEN)
def test_damaged_entry_is_reported(run_damaged, perceiver, checkpoint, command, dotted, wrong):
    run_damaged(command, checkpoint, found(checkpoint, dotted), WRONG[wrong])


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_sample_of_damaged_entries_causes_no_traceback(run_damaged, checkpoint, command):
    combinations = [(name, wrong) for name in entries(checkpoint) for wrong in WRONG]
    sample = combinations[:: EVERY[command] * 4]
    assert len(sample) > 5
    for name, wrong in sample:
        if wrong != 10**30 or not isinstance(wrong, int):  # a learning rate of 1e30 is a number
            run_damaged(command, checkpoint, name, wrong)
