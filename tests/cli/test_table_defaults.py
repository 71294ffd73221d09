"""Defaults for tables by the number of rows."""

from __future__ import annotations

import pytest
import yaml

from perceiver_plugins.table.sizing import SMALL_ROWS


def write_rows(path, count: int, labels) -> str:
    lines = [f"{number % 7},{number / 3},{labels[number % len(labels)]}" for number in range(count)]
    path.write_text("\n".join(["x,y,label", *lines]))
    return str(path)


@pytest.fixture
def configure(perceiver, tmp_path):
    """Return a function that returns the configuration of a run on a table, and the line about its size."""

    def configure(count: int, *flags: str, labels=(0.5, 1.25, 7.0)) -> tuple[dict, str]:
        file = write_rows(tmp_path / "rows.csv", count, labels)
        result = perceiver("fit", "--data=table-files", f"--data.train_files={file}", *flags, "--print_config")
        assert result.code == 0, result.err
        line = next(line for line in result.err.splitlines() if "defaults by the size of the data" in line)
        return yaml.safe_load(result.out), line

    return configure


def test_small_tables_are_regularised(configure):
    config, line = configure(100, "--task=classification", labels=("a", "b", "c"))
    assert line.startswith("perceiver: 90 rows, 3 classes: ")
    assert config["model"]["encoder"]["adapter"] == "table"
    assert config["model"]["encoder"]["number_dropout"] > 0
    assert config["task"]["label_smoothing"] > 0
    assert config["trainer"]["max_epochs"] == 40


@pytest.mark.slow
def test_large_tables_have_fewer_epochs_and_all_numbers(configure):
    small, _ = configure(SMALL_ROWS, "--task=regression")
    large, line = configure(10 * SMALL_ROWS, "--task=regression")
    assert line.startswith("perceiver: 18,000 rows, 1 target: ")
    assert large["model"]["encoder"]["number_dropout"] == 0
    assert large["trainer"]["max_epochs"] < small["trainer"]["max_epochs"]
    for config in (small, large):
        assert config["model"]["decoder"]["pool_inputs"]
        assert config["model"]["encoder"]["column_init_scale"] > config["model"]["encoder"]["init_scale"]


def test_flags_take_precedence(configure):
    flags = {"model.num_latents": 3, "model.encoder.number_dropout": 0.5, "task.ema_decay": 0.75}
    config, line = configure(100, "--task=regression", *(f"--{name}={value}" for name, value in flags.items()))
    assert config["model"]["num_latents"] == 3
    assert config["model"]["encoder"]["number_dropout"] == 0.5
    assert config["task"]["ema_decay"] == 0.75
    assert not [name for name in flags if f"--{name}=" in line]
