"""Validation of layers and flags into one configuration of plain data."""

from __future__ import annotations

import copy
import warnings
from argparse import ArgumentError
from collections.abc import Mapping
from typing import Any

import yaml
from jsonargparse import Namespace

from perceiver_cli.flag_values import read_flag_values, refuse_words
from perceiver_cli.flags import Parser, known_values
from perceiver_cli.names import accepts_null, refuse_other_scalars
from perceiver_cli.parser_errors import explain
from perceiver_cli.run_config import Run
from perceiver_cli.serialization import NOT_SERIALIZED, with_plain_enums, with_serialized
from perceiver_cli.suggestions import suggest_name
from perceiver_cli.unused_options import check_unused, refuse_unused_flags, unused_options
from perceiver_cli.values import Values, flatten, nest
from perceiver_registry import UserError
from perceiver_registry.option_types import requirement

WORDS = "inputs"
"""Name of the option for positional arguments."""


def validate(parser: Parser, run: Run) -> Values:
    """Merge the layers and the flags, and convert each value to the type of its flag.

    Args:
        parser: the known flags.
        run: the run.

    Returns:
        All values as nested plain data.

    Raises:
        UserError: if a key or flag is unknown, or if a value has a wrong type; the message names the flag, or file and
            line.
    """
    takes_words = WORDS in parser.hints()
    if not takes_words:
        refuse_words(parser, run.line)
    unused = unused_options(run)
    _check_files(parser, run, unused)
    refuse_unused_flags(run, unused)
    flags = read_flag_values(parser, run.line)
    values = {name: value for name, value in known_values(parser, run).items() if name not in flags.composed}
    values |= flags.values
    if takes_words:
        values[WORDS] = []
    _refuse_nulls(parser, run, values)
    try:
        config = parser.parse_object(copy.deepcopy(nest(values)), defaults=False)  # it changes its argument
        config = parser.parse_args(flags.words(run.values), namespace=config)
    except ArgumentError as error:
        given = {**flags.sketches(run.values), **values}
        required, composed = parser.required(), sorted(flags.composed)
        raise _explained(explain(error, given, parser.hints(), required, composed, run.locate), run) from error
    return _as_plain(parser, config) | ({WORDS: list(run.line.words)} if takes_words else {})


def _refuse_nulls(parser: Parser, run: Run, values: Values) -> None:
    """Check that no value is null where the type and the default of its flag are others: jsonargparse accepts it."""
    hints, defaults = parser.hints(), parser.defaults()
    for name, value in values.items():
        if value is None and defaults.get(name) is not None and not accepts_null(hints[name]):
            raise _explained(UserError(f"{run.locate(name)}: {requirement(hints[name], value)}"), run)


def _explained(error: UserError, run: Run) -> UserError:
    """Return an error with the explanation of the description that the run's model has, if its value is wrong."""
    if run.source and run.description and str(error).startswith(run.source):
        return UserError(run.description.explain(str(error), run.source))
    return error


def _check_files(parser: Parser, run: Run, unused: Mapping[str, Any]) -> None:
    """Check that the keys of config files are flags, and that YAML parsed no string as another type."""
    names, leaves = parser.names(), parser.leaves()
    kept = flatten(run.values, leaves)  # without options that a later layer replaced
    for layer in run.user:
        if not layer.is_file:
            continue
        values = flatten(layer.values, leaves)
        for key in values:
            if key in unused:
                check_unused(layer, key, values[key], unused[key], run)
            elif key in kept and key not in names:
                raise UserError(f"{layer.line_of(key)}: unknown key {key!r} ({suggest_name(key, names)})")
        refuse_other_scalars(layer, values, parser.hints())


def _as_plain(parser: Parser, config: Namespace) -> Values:
    """Convert parsed values to nested plain data."""
    config.pop("config", None)
    # Options of the trainer's classes may be of any type, such as a strategy's timeout.
    given = with_plain_enums(config.trainer)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f"{NOT_SERIALIZED}.*")
        dumped = parser.dump(Namespace(trainer=given), skip_unset=False, skip_validation=True)
    return config.as_dict() | {"trainer": with_serialized(yaml.safe_load(dumped)["trainer"], given.as_dict())}
