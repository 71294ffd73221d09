"""Training with each registered input adapter, output adapter and embedded data module, from flags."""

from __future__ import annotations

import csv
import functools
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from itertools import islice
from typing import Any

import pytest

from perceiver_plugins.text.data import embedded as embedded_data
from perceiver_plugins.text.data.corpora import python_docs
from perceiver_registry import AdapterSpec, DataSpec, TaskSpec, registry
from perceiver_registry.specs import DEFAULT_ARCHITECTURE

SMALL = {
    "model.num_latents": 4,
    "model.num_latent_channels": 16,
    "model.init": "normal",
    "model.encoder.num_self_attention_layers_per_block": 1,
    "model.encoder.num_self_attention_heads": 2,
    "model.encoder.num_cross_attention_heads": 1,
    "model.encoder.num_cross_attention_qk_channels": 16,
    "model.encoder.init_scale": 0.2,
    "model.decoder.num_cross_attention_heads": 1,
    "model.decoder.num_cross_attention_qk_channels": 16,
    "model.decoder.init_scale": 0.2,
    "lr_scheduler": "none",
    "optimizer.lr": 0.01,
    "trainer.accelerator": "cpu",
    "trainer.logger": "CSVLogger",
    "trainer.logger.save_dir": "logs",
    "trainer.enable_progress_bar": False,
    "trainer.enable_model_summary": False,
    "trainer.log_every_n_steps": 1,
}

STEPS = 2


def flags(values: Mapping[str, Any]) -> list[str]:
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()]


def fits(adapter: AdapterSpec, task: TaskSpec) -> bool:
    """Check whether an input adapter serves a task; other architectures need the adapter that is made for them."""
    is_for_all = task.architecture == DEFAULT_ARCHITECTURE
    return set(task.reads) <= set(adapter.reads) and (is_for_all or adapter.name == task.defaults["model.encoder"])


def used(values: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Return the values of fields that the task's architecture uses."""
    config_type: Any = registry().get("architecture", registry().get("task", task).spec.architecture).resolve("config")
    unused = {f"model.{part}.{field}" for part in ("encoder", "decoder") for field in config_type.unused_fields(part)}
    own = {field.name for field in fields(config_type)}
    return {
        flag: value
        for flag, value in values.items()
        if flag not in unused and (flag.count(".") != 1 or not flag.startswith("model.") or flag[6:] in own)
    }


def possible_pairs() -> dict[str, list[tuple[AdapterSpec, str]]]:
    """Return the output adapters, each with a task that has training, that fit each input adapter."""
    return {
        encoder.name: [
            (decoder.spec, task)
            for decoder in registry().entries("output")
            for task in decoder.spec.tasks[:1]
            if registry().get("task", task).spec.data is not None
            and fits(encoder.spec, registry().get("task", task).spec)
        ]
        for encoder in registry().entries("input")
    }


def pairs() -> list[Any]:
    """Return pairs of adapters with each input adapter and each output adapter at least once."""
    possible = possible_pairs()
    fitting = [(name, decoders) for name, decoders in possible.items() if decoders]
    chosen = [(name, decoders[index % len(decoders)]) for index, (name, decoders) in enumerate(fitting)]
    covered = {decoder.name for _, (decoder, _) in chosen}
    for name, decoders in possible.items():
        for decoder, task in decoders:
            if decoder.name not in covered:
                covered.add(decoder.name)
                chosen.append((name, (decoder, task)))
    return [
        pytest.param(registry().get("input", name).spec, decoder, task, id=f"{name}-{decoder.name}")
        for name, (decoder, task) in chosen
    ]


def test_pairs_contain_all_adapters():
    encoders, decoders = ({pair.values[index].name for pair in pairs()} for index in (0, 1))
    assert encoders == {name for name, fitting in possible_pairs().items() if fitting}
    assert decoders == {decoder.name for fitting in possible_pairs().values() for decoder, _ in fitting}
    assert len(encoders) > 8
    assert len(decoders) > 4


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "decoder", "task"), pairs())
def test_input_trains_with_output(perceiver, tmp_path, monkeypatch, encoder, decoder, task):
    monkeypatch.chdir(tmp_path)
    chosen = {"task": task, "model.encoder": encoder.name, "model.decoder": decoder.name, "data": "random"}
    examples = used({**SMALL, **encoder.example, **decoder.example}, task)
    if decoder.name == "text":  # untied output layer
        examples["model.decoder.num_output_query_channels"] = 16
    size = {"data.num_examples": 8, "data.batch_size": 8, "trainer.max_epochs": STEPS}
    result = perceiver("fit", *flags(chosen | examples | size))
    assert result.code == 0, result.err
    with (tmp_path / "logs/lightning_logs/version_0/metrics.csv").open() as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]]
    assert len(losses) == STEPS
    assert losses[1] != losses[0]  # of the same batch; test_random_data has models that memorise their examples
    assert all(map(math.isfinite, losses))


def embedded() -> list[Any]:
    """Return the data modules that need no download, with each task that they serve."""
    names = ("digits", "diabetes", "languages", "python-code", "python-docs", "stereo-pair", "synthetic-clips")
    specs: list[DataSpec] = [registry().get("data", name).spec for name in names]
    return [pytest.param(spec.name, task, id=f"{spec.name}-{task}") for spec in specs for task in spec.tasks]


@functools.cache
def some_docs() -> list[str]:
    return [*islice(python_docs(), 300)]


@pytest.mark.slow
@pytest.mark.parametrize(("data", "task"), embedded())
def test_embedded_data_trains_its_tasks(perceiver, tmp_path, monkeypatch, data, task):
    monkeypatch.chdir(tmp_path)
    spec, task_spec = registry().get("data", data).spec, registry().get("task", task).spec
    fitting = (
        e for e in registry().entries("input") if e.spec.reads and spec.feeds(e.spec) and fits(e.spec, task_spec)
    )
    default = task_spec.defaults.get("model.encoder")
    encoder = min(fitting, key=lambda entry: entry.name != default)  # the default one, or the first
    # A part of the texts, in a cache of its own; tests/text has tests of all of them.
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("perceiver_plugins.text.data.python_code.TOTAL_CHARACTERS", 500_000)
    monkeypatch.setattr(embedded_data, "python_docs", some_docs)
    budget = {"trainer.max_steps": 2, "trainer.val_check_interval": 1.0, "trainer.limit_val_batches": 1}
    trainer = {name: value for name, value in SMALL.items() if name.startswith("trainer.")}
    small = {"model.num_latents": 4, "model.encoder.num_self_attention_layers_per_block": 1, "data.batch_size": 2}
    result = perceiver(
        "fit", *flags({"task": task, "data": data, "model.encoder": encoder.name} | trainer | budget | small)
    )
    assert result.code == 0, result.err
