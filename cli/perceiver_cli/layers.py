"""From the command line, config files and a checkpoint to one nested dict of values, and to the names chosen in it.

What a run is made of is chosen by names (``--task=mlm --data=wikipedia --optimizer=Lamb``). They decide which further
flags exist, so they are read first. Values come in layers, each of which wins over those before it: the defaults of
the task, of the data module and of the named model; the published model that ``params`` names; the checkpoint; config
files; flags.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from perceiver_registry import (
    AdapterSpec,
    AmbiguousNameError,
    Entry,
    Plugin,
    TaskSpec,
    UserError,
    config_to_dict,
    read_checkpoint,
    registry,
)
from perceiver_registry.checkpoint import KEY, require
from perceiver_registry.params import is_checkpoint, is_published

Values = dict[str, Any]

NAME_KEYS = {
    "task": "name",
    "model": "name",
    "model.encoder": "adapter",
    "model.decoder": "adapter",
    "data": "name",
    "optimizer": "name",
    "lr_scheduler": "name",
}
"""The sections that are chosen by name, and the key under which each holds it."""

KINDS = {"task": "task", "model": "model", "model.encoder": "input", "model.decoder": "output", "data": "data"}
"""The sections whose names are registered, and the registry's kind of each."""

PARAMS = ("model.params", "model.encoder.params")
"""Weights to start from, which bring the model's, or the encoder's, architecture along."""

NONE = ("none", "null")
"""What a flag may say for "no such thing"."""


class NamesParser(argparse.ArgumentParser):
    """An argument parser whose errors are the user's to mend."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


@dataclass
class Run:
    """What is to be run, before the remaining flags are parsed.

    Attributes:
        task: the registered task, or None if none is named (which only ``--help`` can do without).
        values: the values of all layers but the remaining flags.
        flags: the flags that are yet to be parsed.
        checkpoint: path of the checkpoint to load, or None.
        description: that checkpoint's description of itself, or None.
        config_files: the contents of each config file, to be checked.
        print_config: whether to print the configuration instead of running it.
        help: whether to print the help instead of running.
    """

    task: Entry[TaskSpec] | None
    values: Values
    flags: list[str]
    checkpoint: Path | None
    description: Mapping[str, Any] | None
    config_files: dict[str, Values]
    print_config: bool
    help: bool


def read_run(command: str, argv: Iterable[str]) -> Run:
    """Reads the names that a command line chooses and gathers the values that go with them.

    Args:
        command: the subcommand: "fit", "validate", "test" or "predict".
        argv: what follows it.

    Raises:
        UserError: if a name is unknown, or a config file or checkpoint cannot be read.
    """
    parser = NamesParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", action="append", default=[])
    parser.add_argument("--ckpt_path")
    parser.add_argument("--print_config", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    for section in PARAMS:
        parser.add_argument(f"--{section}")
    for section in NAME_KEYS:
        parser.add_argument(f"--{section}")
    known, flags = parser.parse_known_args([_plain_flag(argument) for argument in argv])
    given = vars(known)

    files = {path: _read_config_file(path) for path in given["config"]}
    user: Values = {}
    flat = {name: given[name] for name in (*NAME_KEYS, *PARAMS) if given[name] is not None}
    named = nest({name: None if value in NONE else value for name, value in flat.items()})
    for values in (*files.values(), named):
        _canonise(values)
        user = merge(user, values)

    ckpt_path = given["ckpt_path"] or user.get("ckpt_path")
    if command == "predict" and not ckpt_path and not given["help"]:
        raise UserError("--ckpt_path is missing: which checkpoint shall predict?")
    checkpoint = find_checkpoint(ckpt_path, user, flags) if ckpt_path else None
    description = read_checkpoint(checkpoint)[KEY] if checkpoint else None
    base = _values_of_checkpoint(command, description) if description else {}
    if checkpoint and description and not name_of(user, "data"):
        for used in description["plugins"]:
            if used["kind"] == "data":
                require(used, checkpoint)

    task_name = name_of(user, "task") or name_of(base, "task") or _task_of_model(name_of(user, "model"))
    if task_name is None and not given["help"]:
        raise UserError(f"--task is missing; known: {', '.join(registry().names('task'))}")
    task = registry().get("task", task_name) if task_name else None
    values = _gather(task, base, user) if task else user
    if task:
        _check_names(task, values)
    return Run(task, values, flags, checkpoint, description, files, given["print_config"], given["help"])


def _gather(task: Entry[TaskSpec], base: Values, user: Values) -> Values:
    """The values of all layers, the later ones over the earlier ones."""
    model_name = name_of(user, "model")
    model = registry().get("model", model_name) if model_name else None
    of_model = _of_spec(model, model.spec.defaults) if model else {}
    # The name of the data that is used in the end, so that a named model's defaults for data hold for any data.
    of_task = _of_spec(task, {"data": task.spec.data})
    data_name = next(filter(None, (name_of(layer, "data") for layer in (user, base, of_model, of_task))))
    named = nest({"task": registry().short_name(task), "data": data_name})
    layers = [_merged([named, _of_spec(task, task.spec.defaults)])]

    data = registry().find("data", data_name)
    if data is not None:
        layers.append(_of_spec(data, data.spec.defaults))

    chosen = user.get("model", {})
    params, encoder_params = chosen.get("params"), chosen.get("encoder", {}).get("params")
    if model is not None:
        of_model.get("data", {}).pop(NAME_KEYS["data"], None)
        layers.append(of_model)
        config = _of_spec(model, {f"model.{field}": value for field, value in model.spec.config.items()})["model"]
        layers.append({"model": Replacement({"name": model_name, **config})})
    encoder_name = name_of(_merged([*layers, base, user]), "model.encoder")
    if params and not model_name:
        published = [entry for entry in registry().entries("model") if entry.spec.params == params]
        layers.extend(_of_spec(entry, entry.spec.defaults) for entry in published)
        config = _config_of_params(encoder_name, params)
        if config is not None:
            layers.append({"data": _data_of_params(config["encoder"], params)})
            layers.append({"model": Replacement(config | {"params": params})})
    if encoder_params:
        layers.extend(_layers_of_encoder(encoder_name, encoder_params))
    return _merged([*layers, base, user])


def _of_spec(entry: Entry[Any], flat: Mapping[str, Any]) -> Values:
    """Nested values that stand in a spec, in which names mean what the spec's own distribution registers first."""
    values = nest(flat)
    _canonise(values, entry.plugin)
    return values


def _layers_of_encoder(encoder_name: str | None, params: str) -> Iterator[Values]:
    """What comes with an encoder that is taken over: its architecture, and the options of data that it depends on."""
    config = _config_of_params(encoder_name, params)
    if config is None:
        return
    encoder = config["encoder"] | {"params": params, "freeze": False}
    latents = {key: config[key] for key in ("num_latents", "num_latent_channels")}
    yield {"model": {"encoder": Replacement(encoder), **latents}}
    yield {"data": _data_of_params(encoder, params)}


def _data_of_params(encoder: Mapping[str, Any], params: str) -> Values:
    """The options of data that the weights of an encoder depend on, as far as its source says what they were."""
    adapter = registry().get("input", encoder[NAME_KEYS["model.encoder"]]).spec
    if is_checkpoint(params):
        data = _data_of_checkpoint(read_checkpoint(params)[KEY])
    else:
        published = [entry.spec for entry in registry().entries("model") if entry.spec.params == params]
        data = {attribute: encoder[field] for field, attribute in adapter.links.items()}
        data |= {key: value for spec in published for key, value in nest(spec.defaults).get("data", {}).items()}
    return {option: data[option] for option in adapter.data_options if option in data}


def _data_of_checkpoint(description: Mapping[str, Any]) -> Values:
    """The options of the data that a model was trained on: also those that were left to its data module."""
    options = {key: value for key, value in description["run"].get("data", {}).items() if value is not None}
    # A tokenizer is described by what it is made of; as an option it has a name.
    resolved = {key: value for key, value in description["data"].items() if not isinstance(value, Mapping)}
    return resolved | options


def _check_names(chosen: Entry[TaskSpec], values: Values) -> None:
    """Checks that what is chosen by name goes together, as far as the specs say.

    Raises:
        UserError: if it does not.
    """
    task = chosen.spec
    own_decoder = name_of(_of_spec(chosen, task.defaults), "model.decoder")
    encoder, decoder, data = (
        registry().find(kind, name) if (name := name_of(values, section)) else None
        for section, kind in (("model.encoder", "input"), ("model.decoder", "output"), ("data", "data"))
    )
    is_own = name_of(values, "model.decoder") == own_decoder  # a task may be built on the output of others
    if decoder is not None and not is_own and decoder.spec.tasks and task.name not in decoder.spec.tasks:
        raise UserError(
            f"the output adapter {decoder.name!r} does not go with task {task.name!r}, but with: "
            f"{', '.join(decoder.spec.tasks)}"
        )
    if encoder is not None and not set(task.reads) <= set(encoder.spec.reads):
        raise UserError(
            f"the input adapter {encoder.name!r} does not go with task {task.name!r}, which needs one that reads "
            f"{' and '.join(task.reads)}"
        )
    if data is not None and not data.spec.serves(task.name):
        raise UserError(
            f"--data={data.name} has nothing for task {task.name!r}; data that has: {_data_for(task, encoder)}"
        )
    if data is not None and encoder is not None and not data.spec.feeds(encoder.spec):
        raise UserError(
            f"--data={data.name} has {' and '.join(data.spec.yields)}, but the input adapter {encoder.name!r} reads "
            f"{' and '.join(encoder.spec.reads)}; data that fits: {_data_for(task, encoder)}"
        )


def _data_for(task: TaskSpec, encoder: Entry[AdapterSpec] | None) -> str:
    fitting = [
        registry().short_name(entry)
        for entry in registry().entries("data")
        if entry.spec.serves(task.name) and (encoder is None or entry.spec.feeds(encoder.spec))
    ]
    return ", ".join(fitting) or "none is installed"


def _merged(layers: Iterable[Values]) -> Values:
    values: Values = {}
    for layer in layers:
        values = merge(values, layer)
    return values


class Replacement(dict[str, Any]):
    """Values that replace a section as a whole, instead of being merged into it."""


def merge(lower: Mapping[str, Any], upper: Mapping[str, Any], section: str = "") -> Values:
    """``upper``'s values over ``lower``'s. Where ``upper`` names another thing, the options of ``lower``'s go.

    Args:
        lower: nested values.
        upper: nested values that win.
        section: dotted name of the section that the two are.
    """
    name_key = NAME_KEYS.get(section)
    if isinstance(upper, Replacement):
        return copy.deepcopy(dict(upper))
    if name_key is not None and name_key in upper and section != "model":
        name = upper[name_key]
        if name is None or lower.get(name_key) not in (None, name):
            return copy.deepcopy(dict(upper))
    merged = copy.deepcopy(dict(lower))
    for key, value in upper.items():
        if isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value, f"{section}.{key}".lstrip("."))
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def nest(flat: Mapping[str, Any]) -> Values:
    """Nested values from values by dotted name, in which a section's own name stands for its choice by name."""
    values: Values = {}
    for dotted, value in flat.items():
        *path, key = dotted.split(".")
        if dotted in NAME_KEYS or f"model.{dotted}" in NAME_KEYS:
            path, key = [*path, key], NAME_KEYS.get(dotted) or NAME_KEYS[f"model.{dotted}"]
            value = None if value in NONE else value
        node = values
        for part in path:
            node = node.setdefault(part, {})
        node[key] = value
    return values


def flatten(values: Mapping[str, Any], whole: Container[str] = (), prefix: str = "") -> Values:
    """Values by dotted name from nested ones.

    Args:
        values: the nested values.
        whole: dotted names of values that are mappings themselves, and stay what they are.
        prefix: what all dotted names begin with.
    """
    flat: Values = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and name not in whole:
            flat.update(flatten(value, whole, f"{name}."))
        else:
            flat[name] = value
    return flat


def name_of(values: Mapping[str, Any], section: str) -> str | None:
    """The name that ``values`` choose for a section, or None."""
    for key in section.split("."):
        values = values.get(key) or {}
    return values.get(NAME_KEYS[section])


def normalise(values: Mapping[str, Any], section: str = "") -> Values:
    """A config file's values with each section that is chosen by name in one form.

    ``data: wikipedia`` and Lightning's ``data: {class_path: ..., init_args: {...}}`` become ``data: {name: ...}``.
    """
    normal: Values = {}
    for key, value in values.items():
        child = f"{section}.{key}".lstrip(".")
        name_key = NAME_KEYS.get(child)
        if name_key is None:
            normal[key] = value
            continue
        if isinstance(value, str):
            value = {name_key: value}
        value = normalise(value or {name_key: None}, child)
        if "class_path" in value:
            value = {name_key: value.pop("class_path"), **(value.pop("init_args", None) or {}), **value}
        normal[key] = value
    return normal


def _canonise(values: Values, home: Plugin | None = None) -> None:
    """Puts the registered name in the place of a class's name, wherever ``values`` choose by name.

    A name that several distributions claim comes with its distribution, so that equal names mean equal things.

    Args:
        values: nested values, which are changed.
        home: the plugin whose spec they stand in; what it names may be missing, as long as it is not used.

    Raises:
        UnknownNameError: if nothing is registered under a name. Data modules may also be dotted paths of classes.
        AmbiguousNameError: if several distributions register it.
    """
    for section, kind in KINDS.items():
        name = name_of(values, section)
        if name is None:
            continue
        try:
            entry = registry().find(kind, name, home)
        except AmbiguousNameError:
            if home is None:
                raise
            entry = None
        if entry is None and (home is not None or (kind == "data" and "." in name)):
            continue
        node = values
        for key in section.split("."):
            node = node[key]
        node[NAME_KEYS[section]] = registry().short_name(entry or registry().get(kind, name))  # type: ignore[call-overload]


def _plain_flag(argument: str) -> str:
    """Lightning's ``--data.class_path=X --data.init_args.y=1`` in this project's words."""
    flag, equals, value = argument.partition("=")
    for section, key in NAME_KEYS.items():
        prefix = f"--{section}."
        if flag in (f"{prefix}class_path", f"{prefix}{key}"):
            flag = f"--{section}"
        elif flag.startswith(f"{prefix}init_args."):
            flag = prefix + flag.removeprefix(f"{prefix}init_args.")
    return flag + equals + value


def _read_config_file(path: str) -> Values:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"--config={path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--config={path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"--config={path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"--config={path}: a mapping of settings is expected")
    return normalise(values)


def _task_of_model(model_name: str | None) -> str | None:
    if not model_name:
        return None
    model = registry().get("model", model_name)
    return registry().short_name(registry().get("task", model.spec.task, model.plugin))


def _config_of_params(encoder_name: str | None, params: str) -> Values | None:
    """The model's configuration that comes with the weights at ``params``, or None if none does.

    Args:
        encoder_name: the input adapter, which knows the published models of its kind.
        params: a checkpoint, or the id or folder of a published model.
    """
    if is_checkpoint(params):
        return dict(read_checkpoint(params)[KEY]["model"])
    if is_published(params) and encoder_name:
        entry = registry().get("input", encoder_name)
        if entry.spec.conversions:
            return config_to_dict(entry.resolve("conversions").published_config(params))
    return None


def _values_of_checkpoint(command: str, description: Mapping[str, Any]) -> Values:
    """What a checkpoint says of the run: all of it to go on with, or what is needed to use its model."""
    run = dict(description["run"])
    if command != "fit":
        run = {key: run[key] for key in ("data",) if key in run}
    return merge(run, {"task": {"name": description["task"]}, "model": Replacement(description["model"])})


def find_checkpoint(ckpt_path: str, user: Values, flags: list[str]) -> Path:
    """The checkpoint that ``--ckpt_path`` means: a path, or "last" or "best" for the newest of that name.

    Raises:
        UserError: if there is none.
    """
    if ckpt_path not in ("last", "best"):
        return Path(ckpt_path).expanduser()
    root = runs_folder(user, flags)
    found = sorted(root.glob(f"*/*/checkpoints/{ckpt_path}.ckpt"), key=lambda path: path.stat().st_mtime)
    name = name_of(user, "task")
    if name:
        folder = _logger_option("name", user, flags, registry().get("task", name).name)
        found = [path for path in found if path.parents[2].name == folder]
    if not found:
        raise UserError(f"--ckpt_path={ckpt_path}: no run with a checkpoint in {root}")
    return found[-1]


def runs_folder(user: Values, flags: list[str]) -> Path:
    """The folder in which loggers keep their runs."""
    default = _flag("trainer.default_root_dir", flags) or user.get("trainer", {}).get("default_root_dir") or "."
    return Path(_logger_option("save_dir", user, flags, str(Path(default) / "logs")))


def _logger_option(option: str, user: Values, flags: list[str], default: str) -> str:
    logger = user.get("trainer", {}).get("logger")
    configured = logger.get("init_args", {}).get(option) if isinstance(logger, Mapping) else None
    flag = _flag(f"trainer.logger.{option}", flags) or _flag(f"trainer.logger.init_args.{option}", flags)
    return flag or configured or default


def _flag(name: str, flags: list[str]) -> str | None:
    """The value of a flag that is yet to be parsed, written with "=" or as the next word."""
    for i, flag in enumerate(flags):
        written, equals, value = flag.partition("=")
        if written == f"--{name}":
            return value if equals else next(iter(flags[i + 1 :]), None)
    return None
