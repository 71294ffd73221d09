"""Data modules by registered name or by import path."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import Any

from pytorch_lightning import LightningDataModule

from perceiver_cli import allowed
from perceiver_cli.layers import ConfigLayer, layer_with
from perceiver_cli.parser_errors import refused_path
from perceiver_registry import UserError, registry
from perceiver_registry.option_types import ConversionError, convert


def data_class(name: str, task: str, layers: Sequence[ConfigLayer] = ()) -> Any:
    """Return the class of a data module.

    Args:
        name: its registered name or import path.
        task: name of the task that uses it.
        layers: the layers of configuration, for messages.

    Raises:
        UserError: if it does not exist, is the path of a file or folder, or if its import path is not allowed.
    """
    entry = registry().find("data", name)
    if entry is not None:
        return entry.resolve("modules", task) if task in entry.spec.modules else entry.resolve("module")
    where = layer_with(layers, "data.name").locate("data")
    if os.path.exists(name):  # False for names that are no valid path
        example = shlex.quote(f"--data.{'test_files' if os.path.isfile(name) else 'path'}={name}")
        raise UserError(f"{where}: {name} is a path, which only fit accepts (example: {example})")
    try:
        return convert(type[LightningDataModule], name.replace(":", "."))
    except ConversionError as error:
        refused = refused_path(error.cause)
        problem = allowed.refusal(refused) if refused else f"{name} is not the import path of a data module"
        raise UserError(f"{where}: {problem}") from error
    except ImportError as error:  # an allowed package that fails to import
        raise UserError(f"--data={name}: cannot be imported: {error}") from error
