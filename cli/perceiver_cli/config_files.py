"""Config files as layers of configuration, with the line of each option."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from perceiver_cli.command_line import CommandLine
from perceiver_cli.layers import INIT_ARGS, ConfigLayer, use_registered_names
from perceiver_cli.paths import refuse_remote_values
from perceiver_cli.values import Values, normalise
from perceiver_registry import UserError
from perceiver_registry.plain_data import PlainDataError, load_yaml, read_settings

TRAINER = "trainer"
"""Section whose options may be in a file of their own."""


def config_layers(line: CommandLine, select: Callable[[Values], Values] = dict) -> list[ConfigLayer]:
    """Read the config files of a command line, later ones over earlier ones.

    Args:
        line: the command line.
        select: selects the values of a file that the command uses.

    Raises:
        UserError: if a file cannot be read, or contains a remote path.
    """
    layers = []
    for path in line.texts("config"):
        layer = read_config_file(f"--config={path}", path)
        layer = replace(layer, values=select(layer.values))
        refuse_remote_values(layer.values, f"{layer.source}: ")
        use_registered_names(layer.values)
        layers.append(layer)
    return layers


def trainer_layers(line: CommandLine) -> list[ConfigLayer]:
    """Read the values of ``--trainer``: files of the trainer's options, or the options as YAML.

    Raises:
        UserError: if one cannot be read.
    """
    return [_trainer_layer(text) for text in line.texts(TRAINER)]


def read_config_file(source: str, path: str) -> ConfigLayer:
    """Read a config file.

    Args:
        source: the flag with the file, for messages.
        path: the file.

    Raises:
        UserError: if it cannot be read, or does not contain a mapping.
    """
    try:
        text = read_settings(Path(path))
    except FileNotFoundError as error:
        raise UserError(f"{source}: no such file") from error
    except OSError as error:
        raise UserError(f"{source}: cannot be read: {error.strerror}") from error
    except PlainDataError as error:
        raise UserError(f"{source}: {error}") from error
    return _parse(source, text)


def _trainer_layer(text: str) -> ConfigLayer:
    source = f"--{TRAINER}={text}"
    if text.lstrip().startswith("{"):
        return ConfigLayer(source, {TRAINER: _parse(source, text).values}, {})
    layer = read_config_file(source, text)
    lines = {f"{TRAINER}.{name}": line for name, line in (layer.lines or {}).items()}
    return ConfigLayer(source, {TRAINER: layer.values}, lines)


def _parse(source: str, text: str) -> ConfigLayer:
    try:
        values = load_yaml(text)
    except PlainDataError as error:
        raise UserError(_yaml_problem(source, error)) from error
    if not isinstance(values, dict):
        raise UserError(f"{source}: not a mapping of options")
    normal = normalise(values)
    file = normal.get(TRAINER)
    if isinstance(file, str):
        normal[TRAINER] = read_config_file(f"--{TRAINER}={file}", file).values
    return ConfigLayer(source, normal, dict(_lines(text)))


def _yaml_problem(source: str, error: PlainDataError) -> str:
    """Describe a document that is not YAML, with the line of the problem if the YAML library reports one."""
    problem, mark = getattr(error.__cause__, "problem", None), getattr(error.__cause__, "problem_mark", None)
    if not problem or mark is None:
        return f"{source}: {error}"
    return f"{source}, line {mark.line + 1}: not YAML: {problem}"


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """Yield the dotted names of the options in a YAML document, each with its line."""
    import yaml

    def walk(node: Any, prefix: str) -> Iterator[tuple[str, int]]:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            if f".{key.value}" != INIT_ARGS:
                yield name, key.start_mark.line + 1
                yield from walk(value, f"{name}.")
            else:
                yield from walk(value, prefix)

    yield from walk(yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), "")
