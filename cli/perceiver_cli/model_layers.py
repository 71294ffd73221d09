"""Layers of configuration of a task, a named model, pretrained weights or a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perceiver_cli.foreign_paths import without_foreign_paths
from perceiver_cli.layers import ConfigLayer, merge_layers, values_of_spec
from perceiver_cli.values import ARCHITECTURE, NAME_KEYS, Replacement, Values, merge, name_of, nest
from perceiver_registry import Entry, ModelDescription, ModelSpec, TaskSpec, UserError, registry
from perceiver_registry.formats import Source, open_source
from perceiver_registry.registry import NOUNS
from perceiver_registry.specs import DEFAULT_ARCHITECTURE

WEIGHTS_SUFFIX = ".safetensors"
"""Suffix of files that may contain weights without a description of their model."""

FILES = ("train_files", "val_files", "test_files")
"""Options of data modules with the files of the splits."""


def default_layers(task: Entry[TaskSpec], above: Sequence[ConfigLayer]) -> list[ConfigLayer]:
    """Return the layers below the user's: defaults of the task, the data and the model, and pretrained weights.

    Args:
        task: the task.
        above: the layers of the checkpoint, the config files and the names on the command line.
    """
    user = merge_layers(above)
    model_name = name_of(user, "model")
    model = registry().get("model", model_name) if model_name else None
    model_values = values_of_spec(model, model.spec.defaults) if model else {}
    # The name of the final data module, so that a named model's defaults for data apply to any data module.
    data_name = name_of(user, "data") or name_of(model_values, "data") or _default_data(task, user)
    named = nest({"task": registry().short_name(task), "data": data_name})
    named |= values_of_spec(task, {ARCHITECTURE: task.spec.architecture})
    layers = [_layer_of(task, merge(named, values_of_spec(task, task.spec.defaults)))]
    data = registry().find("data", data_name)
    if data is not None:
        layers.append(_layer_of(data, values_of_spec(data, data.spec.defaults_for(task.name))))
    if model is not None:
        layers.extend(_layers_of_named_model(model, model_values))
    return [*layers, *_layers_of_params(user, is_named=model is not None)]


def _default_data(task: Entry[TaskSpec], user: Values) -> str:
    """Return the name of a task's data module, or that of the chosen input adapter if it cannot read the former."""
    of_task = name_of(values_of_spec(task, {"data": task.spec.data}), "data")
    assert of_task is not None
    chosen = name_of(user, "model.encoder")
    encoder, data = registry().find("input", chosen) if chosen else None, registry().find("data", of_task)
    if encoder is None or encoder.spec.data is None or data is None or data.spec.feeds(encoder.spec):
        return of_task
    own = name_of(values_of_spec(encoder, {"data": encoder.spec.data}), "data")
    entry = registry().find("data", own) if own else None
    return own if own and entry is not None and entry.spec.serves(task.spec.name) else of_task


def _layers_of_named_model(model: Entry[ModelSpec], defaults: Values) -> Iterator[ConfigLayer]:
    defaults.get("data", {}).pop(NAME_KEYS["data"], None)
    yield _layer_of(model, defaults)
    fields = {"architecture": DEFAULT_ARCHITECTURE, **model.spec.config}
    config = values_of_spec(model, {f"model.{field}": value for field, value in fields.items()})["model"]
    yield _layer_of(model, {"model": Replacement({"name": registry().short_name(model), **config})})


def _layers_of_params(user: Values, is_named: bool) -> Iterator[ConfigLayer]:
    """Yield the layers of the pretrained weights of a model or its encoder."""
    model = user.get("model", {})
    params, encoder_params = model.get("params"), model.get("encoder", {}).get("params")
    if params and not is_named:
        for entry in registry().entries("model"):
            if entry.spec.params == params:
                yield _layer_of(entry, values_of_spec(entry, entry.spec.defaults))
        description = description_of(params)
        if description is not None:
            config = Replacement({**_model_of(description), "params": params})
            yield ConfigLayer(params, {"data": _data_of_params(description, params)})
            yield ConfigLayer(params, {"model": config})
    if encoder_params:
        yield from _layers_of_encoder(encoder_params)


def _layers_of_encoder(params: str) -> Iterator[ConfigLayer]:
    """Yield the layers of a pretrained encoder: its architecture, and the data options that it depends on."""
    description = description_of(params)
    if description is None:
        return
    config = description.model
    latents = {key: config[key] for key in ("num_latents", "num_latent_channels") if key in config}
    encoder = Replacement(config["encoder"] | {"params": params, "freeze": False})
    yield ConfigLayer(params, {"model": {"encoder": encoder, **latents}})
    yield ConfigLayer(params, {"data": _data_of_params(description, params)})


def checkpoint_layer(command: str, source: Source) -> ConfigLayer:
    """Return the layer of a source: the whole run to resume it, or the options that its model needs.

    Args:
        command: "fit", "validate" or "test".
        source: the model's source.
    """
    description = source.description
    task = {"task": {"name": description.task}}
    if source.checkpoint is None:
        return ConfigLayer(source.path, task | {"model": {"params": source.path}})
    run = dict(description.run)
    if command != "fit":
        run = {key: run[key] for key in ("data",) if key in run}
    elif "trainer" in run:
        run["trainer"] = without_foreign_paths(run["trainer"], source.checkpoint.path)
    return ConfigLayer(source.path, merge(run, task | {"model": Replacement(_model_of(description))}))


def _model_of(description: ModelDescription) -> Values:
    """Return the model's values with the name of its architecture, which that of the task must not replace."""
    return {**description.model, "architecture": description.architecture}


def without_other_files(layer: ConfigLayer, kept: str) -> ConfigLayer:
    """Return a checkpoint's layer without the files of other splits, which may no longer exist.

    Args:
        layer: the layer.
        kept: the option of the files that are used.
    """
    data = {key: value for key, value in layer.values.get("data", {}).items() if key == kept or key not in FILES}
    return ConfigLayer(layer.source, layer.values | {"data": data})


def task_of_model(name: str | None) -> str | None:
    """Return the task of a named model."""
    if not name:
        return None
    model = registry().get("model", name)
    return registry().short_name(registry().get("task", model.spec.task, model.plugin))


def _layer_of(entry: Entry[Any], values: Values) -> ConfigLayer:
    return ConfigLayer(source_of_entry(entry), values)


def source_of_entry(entry: Entry[Any]) -> str:
    """Return the source of a layer with the defaults of a registered part: "data module 'text-files'"."""
    return f"{NOUNS[entry.kind]} {entry.name!r}"


def _data_of_params(description: ModelDescription, params: str) -> Values:
    """Return the data options that the weights of an encoder depend on, as recorded in their source."""
    encoder = description.model["encoder"]
    adapter = registry().get("input", encoder[NAME_KEYS["model.encoder"]]).spec
    published = [entry.spec for entry in registry().entries("model") if entry.spec.params == params]
    # A checkpoint of an older version lacks newer fields.
    data = {attribute: encoder[field] for field, attribute in adapter.links.items() if field in encoder}
    data |= {key: value for spec in published for key, value in nest(spec.defaults).get("data", {}).items()}
    data |= _data_of_description(description)
    return {option: data[option] for option in adapter.data_options if option in data}


def _data_of_description(description: ModelDescription) -> Values:
    """Return the data options that a model was trained with, including defaults resolved by the data module."""
    options = {key: value for key, value in description.run.get("data", {}).items() if value is not None}
    # The description of a tokenizer is its content; the option is its name.
    resolved = {
        key: value.get("name") if isinstance(value, Mapping) else value for key, value in description.data.items()
    }
    return {key: value for key, value in resolved.items() if value is not None} | options


def description_of(params: str) -> ModelDescription | None:
    """Return the description in a source of weights, or None for a file of weights without one.

    Raises:
        UserError: if the source cannot be read.
    """
    try:
        return open_source(params).description
    except UserError:
        if params.endswith(WEIGHTS_SUFFIX):  # loading reports a damaged file
            return None
        raise
