"""Weights in the safetensors files of a folder or hub id, as tensors by name."""

from __future__ import annotations

from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file
from transformers.utils.hub import get_checkpoint_shard_files

from perceiver_registry import UserError

HUB_OPTIONS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
)
"""Arguments of ``from_pretrained`` that locate files."""


def read_stored_weights(source: str, **options: Any) -> dict[str, Tensor]:
    """Read the weights of a folder or hub id, from one file or several.

    Args:
        source: the folder or hub id.
        options: arguments of ``from_pretrained``; those in :data:`HUB_OPTIONS` are used.

    Raises:
        UserError: if there are no safetensors files.
    """
    return {name: weight for file in _find_files(source, **options) for name, weight in load_file(file).items()}


def read_stored_shapes(source: str) -> dict[str, tuple[int, ...]]:
    """Read the shapes of the weights of a folder or hub id, without the weights.

    Args:
        source: the folder or hub id.

    Raises:
        UserError: if there are no safetensors files.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in _find_files(source):
        with safe_open(file, framework="pt") as weights:
            shapes |= {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    return shapes


def _find_files(source: str, **options: Any) -> list[str]:
    """Return the safetensors files of a folder or hub id.

    Raises:
        UserError: if no such file exists.
    """
    where = {name: options[name] for name in HUB_OPTIONS if name in options}
    optional: dict[str, Any] = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_gated_repo": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    file = cached_file(source, SAFE_WEIGHTS_NAME, **where, **optional)
    if file is not None:
        return [file]
    index = cached_file(source, SAFE_WEIGHTS_INDEX_NAME, **where, **optional)
    if index is None:
        raise UserError(f"{source}: {SAFE_WEIGHTS_NAME} not found (save the model again with save_pretrained)")
    files, _ = get_checkpoint_shard_files(source, index, **where)
    return list(files)
