"""``predict`` and ``embed``: inputs, a predictor and output, as a stream."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from perceiver_cli.errors import IncompleteRunError
from perceiver_cli.flag_names import named_flags
from perceiver_cli.flags import GIVEN_TO_PREDICTORS
from perceiver_cli.input_commands import COMMANDS_BY_NAME
from perceiver_cli.inputs import open_inputs
from perceiver_cli.output import refuse_inputs
from perceiver_cli.predictions import Output, choose_output
from perceiver_cli.run_config import Run
from perceiver_cli.values import Values, name_of
from perceiver_cli.vectors import ids_file
from perceiver_registry import UserError, config_from_dict, create_module, registry
from perceiver_registry.errors import in_one_line
from perceiver_registry.params import check_finite

READER_OPTIONS = ("delimiter", "text_column", "keep_columns")
"""Flags that are passed to readers, over the description of the training data."""


def predict(command: str, chosen: Run, values: Values, device: torch.device) -> None:
    """Predict for inputs in arguments, a file or standard input, and print or write the predictions.

    Args:
        command: "predict" or "embed".
        chosen: the model and its task.
        values: values of the flags.
        device: device of the model.

    Raises:
        UserError: if a flag or the model's source is wrong.
        IncompleteRunError: if some of the inputs could not be read.
    """
    assert chosen.task is not None
    input_command = COMMANDS_BY_NAME[command]
    predictor_class = input_command.find_predictor(chosen.task)
    if predictor_class is None:
        raise UserError(f"--task={chosen.task.name}: this task has no predictor (perceiver embed embeds inputs)")
    arguments = predictor_arguments(predictor_class)
    output, folder = choose_output(
        values["output"], values["format"], values["overwrite"], "output" in arguments, input_command.binary_formats
    )
    output = replace(output, kept=tuple(values["keep_columns"] or ()))
    if values["output"]:
        _refuse_inputs_as_output(output, values)
    input_command.check_flags(output, values)
    given, lines = ([], None) if values.get("vectors") else open_inputs(values["inputs"], values["input"])
    module = load_module(chosen, device)
    if values["quantize"]:
        module.quantize()
        weights = f"{values['quantize']} weights, which changes {input_command.results} slightly"
        print(f"perceiver: {input_command.action} with {weights}", file=sys.stderr)
    predictor = create_predictor(predictor_class, module, chosen, {**values, "output": folder})
    long_lines = getattr(predictor.reader, "long_inputs", False)
    inputs: Iterable[str] = itertools.chain(given, lines(long_lines)) if lines else given
    prepared = input_command.prepare(predictor, output, values)
    with named_flags(values, arguments), prepared as (output, found), output.opened() as write:
        predictions = CountedIterator(stream(predictor, inputs) if found is None else found)
        write(predictor, predictions)
        if predictor.failures and not predictions.count:  # within the context, which then keeps an existing file
            raise IncompleteRunError(predictor.failures)
    if predictor.failures:
        raise IncompleteRunError(predictor.failures)


def _refuse_inputs_as_output(output: Output, values: Values) -> None:
    """Check that the files of ``--output`` are not inputs.

    Raises:
        UserError: if one of them is.
    """
    inputs = [*values["inputs"], values["input"], values.get("vectors"), values.get("similar_to")]
    files = [Path(os.path.expanduser(values["output"]))]
    if output.file is not None and output.form == "npy":
        files.append(ids_file(output.file))
    for file in files:
        refuse_inputs(f"--output={file}", file, inputs)


class CountedIterator(Iterator[Any]):
    """Iterator that counts its items."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self.count = 0

    def __next__(self) -> Any:
        item = next(self._items)
        self.count += 1
        return item


def stream(predictor: Any, inputs: Iterable[str]) -> Iterator[Any]:
    """Predict for a stream of inputs, or for all inputs at once if a predictor overrides only ``predict``."""
    definer = next(each for each in type(predictor).__mro__ if {"stream", "predict"} & vars(each).keys())
    return predictor.stream(inputs) if "stream" in vars(definer) else iter(predictor.predict(list(inputs)))


def create_predictor(predictor_class: Any, module: Any, chosen: Run, values: Values) -> Any:
    """Create a predictor with the reader of a model's inputs.

    Args:
        predictor_class: its class.
        module: the Lightning module.
        chosen: the model and its task.
        values: values of the flags, including the predictor's arguments.

    Raises:
        UserError: if an argument is invalid, or if the input adapter has no reader.
    """
    given = {name: values[name] for name in READER_OPTIONS if values.get(name)}
    reader = _create_reader(chosen, module.model.input_adapter, given)
    if values["text_column"] and not hasattr(reader, "text_column"):
        raise UserError(f"--text_column={values['text_column']}: the model does not read texts (leave it out)")
    arguments = predictor_arguments(predictor_class)
    with named_flags(values, arguments):
        return predictor_class(module, reader, **{name: values[name] for name in arguments})


def predictor_arguments(predictor_class: Any) -> list[str]:
    """Return the arguments of a predictor that are options of the command."""
    return [name for name in inspect.signature(predictor_class).parameters if name not in GIVEN_TO_PREDICTORS]


def load_module(chosen: Run, device: torch.device) -> Any:
    """Load the Lightning module of a model in evaluation mode.

    Args:
        chosen: the model and its task.
        device: device of the model.

    Raises:
        UserError: if the source is damaged.
    """
    return _load_module(chosen).to(device).eval()


def _load_module(chosen: Run) -> Any:
    assert chosen.task is not None
    assert chosen.description is not None
    if chosen.checkpoint is None:
        config = config_from_dict({**chosen.description.model, "params": chosen.source})
        return create_module(registry().short_name(chosen.task), config)
    assert chosen.loaded is not None
    assert chosen.checkpoint is not None
    with chosen.description.loading(chosen.checkpoint), readable(chosen.checkpoint):
        config = config_from_dict(chosen.description.model).without_params()
        module = restore_module(chosen.task.resolve("module"), chosen.loaded.take(), config)
    check_finite(dict(module.named_parameters()), str(chosen.checkpoint))
    return module


def restore_module(module_type: Any, checkpoint: dict[str, Any], config: Any) -> Any:
    """Create the module of a checkpoint that is already read; otherwise like Lightning's ``load_from_checkpoint``.

    Args:
        module_type: class of the task's module.
        checkpoint: content of the checkpoint, changed in place.
        config: the model's configuration.
    """
    options = checkpoint.get("hyper_parameters", {})
    parameters = inspect.signature(module_type).parameters
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    # Lightning calls classes and functions in entries that begin with an underscore.
    known = [name for name in options if name in parameters or (takes_all and not name.startswith("_"))]
    module = module_type.create(config, **{name: options[name] for name in known if name != "config"})
    module.configure_model()
    return restore(module, checkpoint)


def restore(module: Any, checkpoint: dict[str, Any]) -> Any:
    """Restore a module's state from the content of a checkpoint, which the module's hook may change."""
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"], strict=module.strict_loading)
    return module


@contextlib.contextmanager
def readable(source: Path | str | None, part: str = "model") -> Iterator[None]:
    """Report errors within this context as damage of a source.

    Args:
        source: the checkpoint or folder.
        part: the part of it that is read.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        raise UserError(f"{source}: its {part} cannot be loaded: {in_one_line(error)}") from error


def _create_reader(chosen: Run, input_adapter: Any, given: Mapping[str, Any]) -> Any:
    """Create the reader of the model's inputs; given values override the checkpoint's description of the data."""
    assert chosen.description is not None
    name = name_of({"model": chosen.description.model}, "model.encoder")
    assert name is not None
    entry = registry().get("input", name)
    if not entry.spec.reader:
        raise UserError(
            f"input adapter {name!r} ({entry.plugin}): no reader, so its models read no inputs from the command line"
        )
    assert chosen.source is not None
    with chosen.description.loading(chosen.source), readable(chosen.source, "description of the data"):
        return entry.resolve("reader")({**chosen.description.data, **given}, input_adapter)
