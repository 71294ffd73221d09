"""From layers and flags to one validated configuration of plain data."""

from __future__ import annotations

import copy
import warnings
from argparse import ArgumentError

import yaml
from jsonargparse import Namespace

from perceiver_cli.flag_values import read_flag_values, refuse_words
from perceiver_cli.flags import Parser, known_values
from perceiver_cli.layers import layer_with
from perceiver_cli.names import refuse_other_scalars
from perceiver_cli.parser_errors import explain
from perceiver_cli.run_config import Run
from perceiver_cli.serialization import NOT_SERIALIZED, with_plain_enums, with_serialized
from perceiver_cli.suggestions import suggest_name
from perceiver_cli.unused_options import check_unused, refuse_unused_flags, unused_options
from perceiver_cli.values import Values, flatten, nest
from perceiver_registry import UserError

WORDS = "inputs"
"""Option of the words of a command line that are no flags."""


def validate(parser: Parser, run: Run) -> Values:
    """Merge the layers and the flags, and convert each value to the type of its flag.

    Args:
        parser: the flags that there are.
        run: what is to be run.

    Returns:
        All values, nested, of plain data.

    Raises:
        UserError: if a key or flag is unknown, or a value is not of its type; the message names the flag, or the file
            and the line.
    """
    takes_words = WORDS in parser.hints()
    if not takes_words:
        refuse_words(parser, run.line)
    _check_files(parser, run)
    refuse_unused_flags(run)
    flags = read_flag_values(parser, run.line)
    values = {name: value for name, value in known_values(parser, run).items() if name not in flags.composed}
    values |= flags.values
    if takes_words:
        values[WORDS] = []
    try:
        config = parser.parse_object(copy.deepcopy(nest(values)), defaults=False)  # it changes its argument
        config = parser.parse_args(flags.words(run.values), namespace=config)
    except ArgumentError as error:
        given = {**flags.sketches(run.values), **values}
        required, composed = parser.required(), sorted(flags.composed)
        fault = explain(error, given, parser.hints(), required, composed, lambda name: _locate(name, run))
        if run.source and run.description and str(fault).startswith(run.source):
            fault = UserError(run.description.explain(str(fault), run.source))
        raise fault from error
    return _as_plain(parser, config) | ({WORDS: list(run.line.words)} if takes_words else {})


def _locate(name: str, run: Run) -> str:
    """Name an option with the source of its value."""
    given = [flag.name.removesuffix("+") for flag in run.line.flags]
    is_flag = any(f"{each}.".startswith(f"{name}.") or f"{name}.".startswith(f"{each}.") for each in given)
    return f"--{name}" if is_flag else layer_with(run.layers, name).locate(name)


def _check_files(parser: Parser, run: Run) -> None:
    """Check that the keys of config files are flags, and that YAML left their texts as they are."""
    names, leaves = parser.names(), parser.leaves()
    kept = flatten(run.values, leaves)  # without the options of what a later layer replaced
    unused = unused_options(run)
    for layer in run.user:
        if not layer.is_file:
            continue
        values = flatten(layer.values, leaves)
        for key in values:
            if key in unused:
                check_unused(layer, key, values[key], unused[key], run)
            elif key in kept and key not in names:
                raise UserError(f"{layer.line_of(key)}: unknown key {key!r}; {suggest_name(key, names)}")
        refuse_other_scalars(layer, values, parser.hints())


def _as_plain(parser: Parser, config: Namespace) -> Values:
    """Parsed values as nested plain data."""
    config.pop("config", None)
    # Options of the trainer's classes may be of any type, such as a strategy's timeout.
    given = with_plain_enums(config.trainer)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f"{NOT_SERIALIZED}.*")
        dumped = parser.dump(Namespace(trainer=given), skip_unset=False, skip_validation=True)
    return config.as_dict() | {"trainer": with_serialized(yaml.safe_load(dumped)["trainer"], given.as_dict())}
