"""``predict``: from inputs as they come, through a task's predictor, to predictions as they come out."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from perceiver_cli.errors import IncompleteRunError
from perceiver_cli.inputs import open_inputs
from perceiver_cli.predictions import choose_output
from perceiver_cli.run_config import Run
from perceiver_cli.values import Values, name_of
from perceiver_registry import UserError, config_from_dict, create_module, registry
from perceiver_registry.errors import in_one_line
from perceiver_registry.params import check_finite

GIVEN_TO_PREDICTORS = ("module", "reader")
"""Arguments of a predictor that are not options of the command line."""


def predict(chosen: Run, values: Values, device: torch.device) -> None:
    """Predict for the inputs given as arguments, in a file or on standard input, and print or write the result.

    Args:
        chosen: the model and its task.
        values: the values of the flags.
        device: where to compute.

    Raises:
        UserError: if something is wrong with what was given.
        IncompleteRunError: if some of the inputs could not be read.
    """
    assert chosen.task is not None
    if not chosen.task.spec.predictor:
        raise UserError(f"task {chosen.task.name!r} predicts nothing from the command line")
    predictor_class = chosen.task.resolve("predictor")
    arguments = [name for name in inspect.signature(predictor_class).parameters if name not in GIVEN_TO_PREDICTORS]
    output, folder = choose_output(values["output"], values["format"], values["overwrite"], "output" in arguments)
    given, lines = open_inputs(values["inputs"], values["input"])
    module = _load_module(chosen)
    module.to(device).eval()
    if values["quantize"]:
        module.quantize()
        print(
            f"perceiver: predicting with {values['quantize']} weights: near the model's own predictions, not equal",
            file=sys.stderr,
        )
    delimiter = {"delimiter": values["delimiter"]} if values["delimiter"] else {}
    reader = _create_reader(chosen, module.model.input_adapter, delimiter)
    options = {name: values[name] for name in arguments} | ({"output": folder} if "output" in arguments else {})
    predictor = predictor_class(module, reader, **options)
    long_lines = getattr(reader, "long_inputs", False)
    inputs: Iterable[str] = itertools.chain(given, lines(long_lines)) if lines else given
    with output.opened() as write:
        write(predictor, _stream(predictor, inputs))
    if predictor.failures:
        raise IncompleteRunError(predictor.failures)


def _stream(predictor: Any, inputs: Iterable[str]) -> Iterator[Any]:
    """Predict for inputs as they come, or for all at once where a predictor defines ``predict`` alone."""
    definer = next(each for each in type(predictor).__mro__ if {"stream", "predict"} & vars(each).keys())
    return predictor.stream(inputs) if "stream" in vars(definer) else iter(predictor.predict(list(inputs)))


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
    """Create the module of a checkpoint, as Lightning's ``load_from_checkpoint`` does with a file.

    Args:
        module_type: the class of the task's module.
        checkpoint: the content of the checkpoint, which is changed.
        config: the model's configuration.
    """
    options = checkpoint.get("hyper_parameters", {})
    parameters = inspect.signature(module_type).parameters
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    # Lightning would take names that begin with an underscore for classes and functions to be called.
    known = [name for name in options if name in parameters or (takes_all and not name.startswith("_"))]
    module = module_type.create(config, **{name: options[name] for name in known if name != "config"})
    module.configure_model()
    return restore(module, checkpoint)


def restore(module: Any, checkpoint: dict[str, Any]) -> Any:
    """Restore a module's state from the content of a checkpoint, which its hook may change."""
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"], strict=module.strict_loading)
    return module


@contextlib.contextmanager
def readable(source: Path | str | None, part: str = "model") -> Iterator[None]:
    """Report whatever fails within this context as damage of what is read there.

    Args:
        source: the checkpoint or folder.
        part: what of it is read.

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
    """Create the reader of the model's inputs; given values win over the checkpoint's description of the data."""
    assert chosen.description is not None
    name = name_of({"model": chosen.description.model}, "model.encoder")
    assert name is not None
    entry = registry().get("input", name)
    if not entry.spec.reader:
        raise UserError(
            f"input adapter {name!r} ({entry.plugin}) has no reader: it cannot be used from the command line"
        )
    assert chosen.source is not None
    with chosen.description.loading(chosen.source), readable(chosen.source, "description of the data"):
        return entry.resolve("reader")({**chosen.description.data, **given}, input_adapter)
