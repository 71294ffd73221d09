"""Checks of data modules and predictors on examples. The docstring of a check is its description."""

from __future__ import annotations

import inspect
import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import SkipTest

import torch

from perceiver_plugins.sdk.tasks.batches import problem_of_missing
from perceiver_registry.errors import UserError
from perceiver_registry.import_paths import resolve_import_path
from perceiver_registry.specs import AdapterSpec, DataSpec, TaskSpec
from perceiver_registry.testing.batches import problems_of_adapted, tensors_of
from perceiver_registry.testing.checks import Contract, expect, expect_none
from perceiver_registry.testing.plugin_contract import PARTS, create_task_module
from perceiver_registry.testing.subjects import SECTIONS, AdapterSubject, PluginSubject, example_reader

CONTRACT = Contract()

ENCODER = "model.encoder"
"""Flag that selects the input adapter."""

NUM_BATCHES = 4
"""Training batches that are loaded; arbitrary."""


# Data modules


@CONTRACT.check(needs=["data_modules_are_valid"])
def data_modules_load_batches(subject: PluginSubject) -> None:
    """A data module, created with its `example`, loads training batches: its collate function accepts the examples of
    its data set and pads examples of different lengths."""
    for spec in _specs_with_example(subject):
        try:
            batches = subject.batches(spec, NUM_BATCHES)
        except Exception as error:
            arguments = ", ".join(f"{name}={value!r}" for name, value in (subject.data_example(spec) or {}).items())
            raise AssertionError(
                f"{spec.name}: cannot load batches with {arguments or 'its defaults'}: {error}"
            ) from error
        expect(batches, f"{spec.name}: train_dataloader() yields nothing")


@CONTRACT.check(needs=["data_modules_load_batches"])
def batches_have_expected_entries(subject: PluginSubject) -> None:
    """A batch is a dict with the entries that `yields` lists and those that the default encoder reads, with the same
    number of examples in each."""
    expect_none(problem for spec in _specs_with_example(subject) for problem in _problems_of_batches(subject, spec))


def _problems_of_batches(subject: PluginSubject, spec: DataSpec) -> Iterator[str]:
    read = {entry for adapter in _default_encoders(subject, spec) for entry in adapter.reads}
    needed = sorted(read | set(spec.yields))
    problems = (_problem_of_batch(batch, needed) for batch in subject.batches(spec, NUM_BATCHES))
    first = next(filter(None, problems), None)
    if first is not None:
        yield f"{spec.name}: {first}"


def _problem_of_batch(batch: Any, needed: Sequence[str]) -> str | None:
    """Describe what is wrong with the entries of a batch, or return None.

    Args:
        batch: the batch.
        needed: names of the entries that it must have.
    """
    if not isinstance(batch, Mapping):
        return f"a batch is {type(batch).__name__}, not a dict"
    missing = [name for name in needed if name not in batch]
    if missing:
        return problem_of_missing(missing, batch)
    entries = [batch[name] for name in (*needed, "labels") if name in batch]
    sizes = {len(tensor) if tensor.dim() else 0 for tensor in tensors_of(entries)}
    if len(sizes) != 1:
        return f"the entries of a batch have {', '.join(map(str, sorted(sizes)))} examples"
    return None


@CONTRACT.check(needs=["data_modules_load_batches"])
def linked_attributes_exist(subject: PluginSubject) -> None:
    """The attributes in an adapter's `links` exist in at least one of the plugin's data modules that fit the adapter,
    after `setup`."""
    _specs_with_example(subject)
    expect_none(
        problem for kind in PARTS for spec in subject.specs(kind) for problem in _problems_of_links(subject, spec)
    )


def _problems_of_links(subject: PluginSubject, adapter: AdapterSpec) -> Iterator[str]:
    specs = [spec for spec in subject.specs("data") if _fit_together(subject, spec, adapter)]
    if not specs or any(subject.data_example(spec) is None for spec in specs):
        return
    for field, attribute in adapter.links.items():
        if not any(hasattr(subject.data(spec), attribute) for spec in specs):
            names = ", ".join(spec.name for spec in specs)
            yield f"{adapter.name}: links[{field!r}]: {names} has no attribute {attribute!r}"


@CONTRACT.check(needs=["batches_have_expected_entries", "linked_attributes_exist"])
def batches_fit_adapters(subject: PluginSubject) -> None:
    """An input adapter accepts the batches of the plugin's data modules that fit it and returns an array of the right
    shape."""
    for spec in _specs_with_example(subject):
        adapters = {adapter.name: adapter for adapter in (*_default_encoders(subject, spec), *subject.specs("input"))}
        for adapter in adapters.values():
            if _fit_together(subject, spec, adapter):
                _expect_fit(subject, spec, adapter)


def _expect_fit(subject: PluginSubject, spec: DataSpec, adapter: AdapterSpec) -> None:
    data = subject.data(spec)
    linked = {
        f"{SECTIONS['input']}{field}": getattr(data, attribute)
        for field, attribute in adapter.links.items()
        if hasattr(data, attribute)
    }
    chosen = AdapterSubject(adapter, linked | _default_values(subject, spec, adapter))
    input_adapter = chosen.adapter_type.from_config(chosen.config())
    try:
        input_adapter.check_data(data)
    except (ValueError, UserError):
        return  # the adapter rejects this data with its own message
    for batch in subject.batches(spec, NUM_BATCHES):
        try:
            with torch.no_grad():
                adapted = input_adapter(batch)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            raise AssertionError(f"{adapter.name} fails on a batch of {spec.name}: {problem}") from error
        size = len(next(tensors_of(batch)))
        problems = problems_of_adapted(adapted, input_adapter.num_input_channels, size)
        expect_none(f"{adapter.name} on a batch of {spec.name}: {problem}" for problem in problems)


def _specs_with_example(subject: PluginSubject) -> list[DataSpec]:
    """Return the specs of the plugin's data modules with an example.

    Raises:
        SkipTest: if no data module has an example.
    """
    specs = [spec for spec in subject.specs("data") if subject.data_example(spec) is not None]
    if not specs:
        raise SkipTest("no data module of the plugin has an `example`")
    return specs


def _default_encoders(subject: PluginSubject, spec: DataSpec) -> list[AdapterSpec]:
    """Return the default input adapters of a data module."""
    choosing: list[Any] = [spec] if ENCODER in spec.defaults else _own_tasks(subject, spec)
    names = {each.defaults[ENCODER] for each in choosing if ENCODER in each.defaults}
    found = [subject.find("input", name) for name in sorted(names)]
    return [adapter for adapter in found if adapter is not None]


def _default_values(subject: PluginSubject, spec: DataSpec, adapter: AdapterSpec) -> dict[str, Any]:
    """Return the default values by flag of an input adapter with a data module."""
    values: dict[str, Any] = {}
    choosing: list[TaskSpec | DataSpec] = [*_own_tasks(subject, spec), spec]
    for each in choosing:
        if each.defaults.get(ENCODER) in (None, adapter.name):
            values |= {flag: value for flag, value in each.defaults.items() if flag.startswith(SECTIONS["input"])}
    return values if adapter in _default_encoders(subject, spec) else {}


def _own_tasks(subject: PluginSubject, spec: DataSpec) -> list[TaskSpec]:
    """Return the plugin's tasks whose default is a data module."""
    return [task for task in subject.specs("task") if task.data == spec.name]


def _fit_together(subject: PluginSubject, spec: DataSpec, adapter: AdapterSpec) -> bool:
    if adapter.kind == "output":
        return bool(set(spec.tasks) & set(adapter.tasks))
    return adapter in _default_encoders(subject, spec) or bool(adapter.reads and spec.yields and spec.feeds(adapter))


# Predictors


@CONTRACT.check(needs=["tasks_train"])
def predictors_predict(subject: PluginSubject) -> None:
    """A predictor returns a prediction, plain data by name, for each input in the `example` of the reader of the task's
    default encoder, and rows for tables of these predictions."""
    predictors = [spec for spec in subject.specs("task") if spec.predictor is not None]
    checked = [_check_predictor(subject, spec) for spec in predictors]
    if not any(checked):
        raise SkipTest("no task of the plugin has a predictor and a default encoder whose reader has an `example`")


def _check_predictor(subject: PluginSubject, spec: TaskSpec) -> bool:
    """Check a task's predictor and return True, or return False without an example."""
    module = create_task_module(subject, spec)
    predictor_type = resolve_import_path(spec.predictor or "")
    if module is None or not _is_callable_with(predictor_type, 2):
        return False
    encoder = subject.find("input", spec.defaults["model.encoder"])
    with tempfile.TemporaryDirectory() as folder:
        found = example_reader(encoder, module.model.input_adapter, Path(folder))
        if found is None:
            return False
        reader, inputs = found
        predictor = predictor_type(module.eval(), reader)
        count = len(reader.expand(inputs))
        try:
            predictions = list(predictor.predict(inputs))
            expect_none(_problems_of_predictions(predictions, count))
            rows = [*predictor_type.rows(predictions)] if hasattr(predictor_type, "rows") else []
        except Exception as error:
            raise AssertionError(f"{spec.name}: {spec.predictor} does not predict: {error}") from error
    expect(all(isinstance(row, Mapping) for row in rows), f"{spec.name}: `rows` yields {rows[:1]}, not dicts by column")
    return True


def _problems_of_predictions(predictions: list[Any], count: int) -> Iterator[str]:
    if len(predictions) != count:
        yield f"there are {len(predictions)} predictions for {count} inputs"
    for prediction in predictions:
        if not isinstance(prediction, Mapping):
            yield f"a prediction is {type(prediction).__name__}, not a dict"
            return
    try:
        json.dumps(predictions)
    except TypeError as error:
        yield f"a prediction is not plain data: {error}"


def _is_callable_with(function: Any, count: int) -> bool:
    try:
        inspect.signature(function).bind(*itertools.repeat(None, count))
    except TypeError:
        return False
    return True
