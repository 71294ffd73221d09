"""From the command line, config files and a checkpoint to one nested dict of values, and to the names chosen in it.

What a run is made of is chosen by names (``--task=mlm --data=wikipedia --optimizer=Lamb``). They decide which further
flags exist, so they are read first. Values come in layers, each of which wins over those before it: the defaults of
the task, of the data module and of the named model; the published model that ``params`` names; the checkpoint; config
files; flags.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from perceiver_cli.foreign_paths import without_foreign_paths
from perceiver_cli.output import is_merged
from perceiver_cli.paths import refuse_remote_values
from perceiver_cli.sources import find_source, flag_value
from perceiver_cli.suggestions import suggest_argument
from perceiver_cli.values import KINDS, NAME_KEYS, NONE, Replacement, Values, merge, name_of, nest, normalise
from perceiver_registry import (
    AdapterSpec,
    AmbiguousNameError,
    Entry,
    ModelDescription,
    Plugin,
    TaskSpec,
    UserError,
    registry,
)
from perceiver_registry.checkpoint import Checkpoint
from perceiver_registry.formats import open_source
from perceiver_registry.plain_data import PlainDataError, load_yaml, read_settings

PARAMS = ("model.params", "model.encoder.params")
"""Weights to start from, which bring the model's, or the encoder's, architecture along."""

UNUSED_IN_PREDICTION = (
    "model",
    "data",
    "optimizer",
    "lr_scheduler",
    "task",
    "trainer",
    "checkpoint",
    "seed_everything",
    "print_config",
)
"""Sections of other commands. A config file may be one of theirs and is read without them; as flags they are wrong."""

OF_PREDICTION = ("task", "model")
"""What chooses the model that predicts."""

OF_TRAINER = ("accelerator", "devices", "default_root_dir", "logger")
"""The trainer's arguments that say where to compute and where runs lie."""

FILES = ("train_files", "val_files", "test_files")
"""Options of data modules that name the files of their splits."""

EVALUATED = {"validate": "val_files", "test": "test_files"}
"""The files that commands evaluate."""

WEIGHTS_ALONE = ".safetensors"
"""What the names of files end in that hold weights, and may not say of what model."""


SOURCE_USE = {"fit": "resuming from", "validate": "validating", "test": "testing", "predict": "predicting with"}
"""How messages put what each command does with a model that was found by name."""


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
        source: where the model is read from that is used or goes on, or None.
        checkpoint: the same, if it is a checkpoint of a run, or None.
        loaded: that checkpoint, as it was read, or None.
        description: the description of the source's model, or None.
        config_files: the contents of each config file, to be checked.
        print_config: whether to print the configuration instead of running it.
        help: whether to print the help instead of running.
    """

    task: Entry[TaskSpec] | None
    values: Values
    flags: list[str]
    source: str | None
    checkpoint: Path | None
    loaded: Checkpoint | None
    description: ModelDescription | None
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
    if command == "predict":
        _refuse_unused({name for name, value in given.items() if value}, flags)
        files = {path: _for_prediction(values) for path, values in files.items()}
    for path, content in files.items():
        refuse_remote_values(content, f"--config={path}: ")
    user: Values = {}
    flat = {name: given[name] for name in (*NAME_KEYS, *PARAMS) if given[name] is not None}
    named = nest({name: None if value in NONE else value for name, value in flat.items()})
    for values in (*files.values(), named):
        _canonise(values)
        user = merge(user, values)

    ckpt_path = given["ckpt_path"] or user.get("ckpt_path")
    source = find_source(command, ckpt_path, named, user, flags, given["help"])
    # The file of a run that is resumed may be replaced while its optimizer still uses what was read.
    opened = open_source(source, map_files=command != "fit") if source else None
    description = opened.description if opened else None
    loaded = opened.checkpoint if opened else None
    checkpoint = loaded.path if loaded else None
    is_data = command == "predict" and flag_value("format", flags) not in (None, "table") and is_merged()
    if source and source != ckpt_path and not is_data:
        print(f"perceiver: {SOURCE_USE[command]} {source}", file=sys.stderr)
    if command == "fit" and source and not checkpoint:
        raise UserError(
            f"--ckpt_path={source}: no checkpoint of a run to go on with; --model.params={source} begins one with "
            "these weights"
        )
    base = _values_of_source(command, source, checkpoint, description) if source and description else {}
    if command in EVALUATED and _names_files(EVALUATED[command], user, flags):
        base = without_other_files(base, EVALUATED[command])
    if checkpoint and description and command != "predict" and not name_of(user, "data"):
        for used in description.plugins:
            if used.kind == "data":
                used.require(checkpoint)

    task_name = name_of(user, "task") or name_of(base, "task") or _task_of_model(name_of(user, "model"))
    if task_name is None and not given["help"]:
        hints = (suggest_argument(flag, ["--task"]) for flag in flags if flag in registry().names("task"))
        listed = f"known: {', '.join(registry().names('task'))}"
        raise UserError(f"--task is missing; {next(hints, None) or listed}")
    task = registry().get("task", task_name) if task_name else None
    values = user
    if task and command != "predict":
        values = _gather(task, base, user)
        _check_names(task, values)
    return Run(
        task, values, flags, source, checkpoint, loaded, description, files, given["print_config"], given["help"]
    )


def _names_files(option: str, user: Values, flags: Iterable[str]) -> bool:
    """Whether config files or flags name files of their own for an option of the data."""
    given = any(flag.partition("=")[0] == f"--data.{option}" for flag in flags)
    return given or (user.get("data") or {}).get(option) is not None


def without_other_files(base: Values, kept: str) -> Values:
    """A checkpoint's values without the files of the data's other splits, which need not exist any more."""
    data = {key: value for key, value in base.get("data", {}).items() if key == kept or key not in FILES}
    return base | {"data": data}


def _refuse_unused(given: Iterable[str], flags: Iterable[str]) -> None:
    """Raises an error if prediction has no use for one of the names that are given, or of the remaining flags."""
    named = [flag.removeprefix("--").partition("=")[0] for flag in flags if flag.startswith("--")]
    for name in (*given, *named):
        section, _, option = name.partition(".")
        used = name in OF_PREDICTION or (section == "trainer" and option.partition(".")[0] in OF_TRAINER)
        if section in UNUSED_IN_PREDICTION and not used:
            raise UserError(
                f"--{name} changes nothing in predict, which takes a model as it was trained; perceiver predict --help "
                "shows what it takes"
            )


def _for_prediction(values: Mapping[str, Any]) -> Values:
    """A config file's values without those that prediction has no use for: it may be that of a training run."""
    kept = {key: value for key, value in values.items() if key not in UNUSED_IN_PREDICTION}
    trainer = {key: value for key, value in (values.get("trainer") or {}).items() if key in OF_TRAINER}
    task = name_of(values, "task")
    return kept | ({"trainer": trainer} if trainer else {}) | ({"task": {NAME_KEYS["task"]: task}} if task else {})


def _gather(task: Entry[TaskSpec], base: Values, user: Values) -> Values:
    """The values of all layers, the later ones over the earlier ones."""
    model_name = name_of(user, "model")
    model = registry().get("model", model_name) if model_name else None
    of_model = values_of_spec(model, model.spec.defaults) if model else {}
    # The name of the data that is used in the end, so that a named model's defaults for data hold for any data.
    of_task = values_of_spec(task, {"data": task.spec.data})
    data_name = next(filter(None, (name_of(layer, "data") for layer in (user, base, of_model, of_task))))
    named = nest({"task": registry().short_name(task), "data": data_name})
    layers = [_merged([named, values_of_spec(task, task.spec.defaults)])]

    data = registry().find("data", data_name)
    if data is not None:
        layers.append(values_of_spec(data, data.spec.defaults))

    chosen = merge(base.get("model", {}), user.get("model", {}), "model")
    params, encoder_params = chosen.get("params"), chosen.get("encoder", {}).get("params")
    if model is not None:
        of_model.get("data", {}).pop(NAME_KEYS["data"], None)
        layers.append(of_model)
        config = values_of_spec(model, {f"model.{field}": value for field, value in model.spec.config.items()})["model"]
        layers.append({"model": Replacement({"name": model_name, **config})})
    if params and not model_name:
        published = [entry for entry in registry().entries("model") if entry.spec.params == params]
        layers.extend(values_of_spec(entry, entry.spec.defaults) for entry in published)
        description = _description_of(params)
        if description is not None:
            layers.append({"data": _data_of_params(description, params)})
            layers.append({"model": Replacement({**description.model, "params": params})})
    if encoder_params:
        layers.extend(_layers_of_encoder(encoder_params))
    return _merged([*layers, base, user])


def values_of_spec(entry: Entry[Any], flat: Mapping[str, Any]) -> Values:
    """Nested values that stand in a spec, in which names mean what the spec's own distribution registers first."""
    values = nest(flat)
    _canonise(values, entry.plugin)
    return values


def _layers_of_encoder(params: str) -> Iterator[Values]:
    """What comes with an encoder that is taken over: its architecture, and the options of data that it depends on."""
    description = _description_of(params)
    if description is None:
        return
    config = description.model
    latents = {key: config[key] for key in ("num_latents", "num_latent_channels")}
    yield {"model": {"encoder": Replacement(config["encoder"] | {"params": params, "freeze": False}), **latents}}
    yield {"data": _data_of_params(description, params)}


def _data_of_params(description: ModelDescription, params: str) -> Values:
    """The options of data that the weights of an encoder depend on, as far as their source says what they were."""
    encoder = description.model["encoder"]
    adapter = registry().get("input", encoder[NAME_KEYS["model.encoder"]]).spec
    published = [entry.spec for entry in registry().entries("model") if entry.spec.params == params]
    data = {attribute: encoder[field] for field, attribute in adapter.links.items()}
    data |= {key: value for spec in published for key, value in nest(spec.defaults).get("data", {}).items()}
    data |= _data_of_description(description)
    return {option: data[option] for option in adapter.data_options if option in data}


def _data_of_description(description: ModelDescription) -> Values:
    """The options of the data that a model was trained on: also those that were left to its data module."""
    options = {key: value for key, value in description.run.get("data", {}).items() if value is not None}
    # A tokenizer is described by what it is made of; as an option it has a name.
    resolved = {key: value for key, value in description.data.items() if not isinstance(value, Mapping)}
    return resolved | options


def _check_names(chosen: Entry[TaskSpec], values: Values) -> None:
    """Checks that what is chosen by name goes together, as far as the specs say.

    Raises:
        UserError: if it does not.
    """
    task = chosen.spec
    own_decoder = name_of(values_of_spec(chosen, task.defaults), "model.decoder")
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
    if flag == "--trainer.strategy" and re.fullmatch(r"[\w.]*Strategy", value):
        flag = "--trainer.strategy.class_path"  # the parser would take it for the name of a strategy, such as ddp
    return flag + equals + value


def _read_config_file(path: str) -> Values:
    try:
        values = load_yaml(read_settings(Path(path)))
    except FileNotFoundError as error:
        raise UserError(f"--config={path}: no such file") from error
    except OSError as error:
        raise UserError(f"--config={path}: cannot be read: {error.strerror}") from error
    except PlainDataError as error:
        raise UserError(f"--config={path}: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"--config={path}: a mapping of settings is expected")
    return normalise(values)


def _task_of_model(model_name: str | None) -> str | None:
    if not model_name:
        return None
    model = registry().get("model", model_name)
    return registry().short_name(registry().get("task", model.spec.task, model.plugin))


def _description_of(params: str) -> ModelDescription | None:
    """What the source of weights says of their model, or None if it is a file of weights alone."""
    try:
        return open_source(params).description
    except UserError:
        if params.endswith(WEIGHTS_ALONE):  # should the file be damaged, loading it says so
            return None
        raise


def _values_of_source(command: str, source: str, checkpoint: Path | None, description: ModelDescription) -> Values:
    """What a model's source says of the run: all of it to go on with, or what is needed to use its model."""
    task = {"task": {"name": description.task}}
    if checkpoint is None:
        return task | {"model": {"params": source}}
    run = dict(description.run)
    if command != "fit":
        run = {key: run[key] for key in ("data",) if key in run}
    elif "trainer" in run:
        run["trainer"] = without_foreign_paths(run["trainer"], checkpoint)
    return merge(run, task | {"model": Replacement(description.model)})
