"""Compatibility of a task, its adapters and its data, as their specs declare it."""

from __future__ import annotations

from typing import Any

from perceiver_cli.layers import values_of_spec
from perceiver_cli.values import KINDS, Values, name_of
from perceiver_registry import AdapterSpec, DataSpec, Entry, TaskSpec, UserError, registry


def check_compatibility(task: Entry[TaskSpec], values: Values) -> None:
    """Check that the chosen adapters and data are compatible with a task.

    Raises:
        UserError: if they are not.
    """
    encoder, decoder, data = (_chosen(values, section) for section in ("model.encoder", "model.decoder", "data"))
    if decoder is not None:
        _check_decoder(task, decoder, name_of(values, "model.decoder"))
    if encoder is not None:
        _check_encoder(task.spec, encoder)
    if data is not None:
        _check_data(task.spec, data, encoder)


def _chosen(values: Values, section: str) -> Entry[Any] | None:
    name = name_of(values, section)
    return registry().find(KINDS[section], name) if name else None


def _check_decoder(task: Entry[TaskSpec], decoder: Entry[AdapterSpec], name: str | None) -> None:
    default = name_of(values_of_spec(task, task.spec.defaults), "model.decoder")
    if name == default or not decoder.spec.tasks:  # a task may use the output adapter of another
        return
    if task.spec.name not in decoder.spec.tasks:
        raise UserError(
            f"--model.decoder={decoder.name}: not an output adapter for task {task.spec.name!r} "
            f"(it serves: {', '.join(decoder.spec.tasks)})"
        )


def _check_encoder(task: TaskSpec, encoder: Entry[AdapterSpec]) -> None:
    if not set(task.reads) <= set(encoder.spec.reads):
        raise UserError(
            f"--model.encoder={encoder.name}: not an input adapter for task {task.name!r}, which needs one that reads "
            f"{' and '.join(task.reads)}"
        )


def _check_data(task: TaskSpec, data: Entry[DataSpec], encoder: Entry[AdapterSpec] | None) -> None:
    if not data.spec.serves(task.name):
        raise UserError(
            f"--data={data.name}: does not serve task {task.name!r} (data that does: {_data_for(task, encoder)})"
        )
    if encoder is not None and not data.spec.feeds(encoder.spec):
        choices = f"{_encoders_for(task, data)}data that fits: {_data_for(task, encoder)}"
        raise UserError(
            f"--data={data.name}: yields {' and '.join(data.spec.yields)}, but input adapter {encoder.name!r} reads "
            f"{' and '.join(encoder.spec.reads)} ({choices})"
        )


def _encoders_for(task: TaskSpec, data: Entry[DataSpec]) -> str:
    """Return advice to choose an input adapter that reads the data; "" without any."""
    fitting = [
        entry
        for entry in registry().entries("input")
        if entry.spec.reads and set(task.reads) <= set(entry.spec.reads) <= set(data.spec.yields)
    ]
    # Adapters of the data's own plugin are made for it.
    fitting = [entry for entry in fitting if entry.plugin == data.plugin] or fitting
    names = " or ".join(registry().short_name(entry) for entry in fitting)
    return f"set --model.encoder={names}, or choose " if fitting else ""


def _data_for(task: TaskSpec, encoder: Entry[AdapterSpec] | None) -> str:
    fitting = [
        registry().short_name(entry)
        for entry in registry().entries("data")
        if entry.spec.serves(task.name) and (encoder is None or entry.spec.feeds(encoder.spec))
    ]
    return ", ".join(fitting) or "none is installed"
