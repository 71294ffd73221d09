"""Loading a model's weights from where ``params`` points. Imports torch when it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_registry.checkpoint import read_checkpoint
from perceiver_registry.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

CHECKPOINT_SUFFIXES = (".ckpt", ".pt")


def is_checkpoint(source: str) -> bool:
    """Whether ``source`` names a checkpoint file by its suffix."""
    return source.endswith(CHECKPOINT_SUFFIXES)


def is_published(source: str) -> bool:
    """Whether ``source`` is a folder or the id of a published model, not a file of weights."""
    return not (is_checkpoint(source) or source.endswith(".safetensors"))


def load_params(model: nn.Module, source: str, convert: Callable[[str], Mapping[str, Tensor]] | None = None) -> None:
    """Loads ``model``'s weights from ``source``.

    Args:
        model: the model, whose parameters are overwritten.
        source: a checkpoint of this project, a safetensors file, or, where ``convert`` is given, a folder in the
            hub's layout or a hub id.
        convert: turns a folder or id into a state dict of ``model``.

    Raises:
        UserError: if there is nothing at ``source``, or if its weights do not fit the model.
    """
    if source.endswith(".safetensors"):
        state = _read_safetensors(source)
    elif is_checkpoint(source):
        prefix = "model."
        state = {
            key.removeprefix(prefix): value
            for key, value in read_checkpoint(source)["state_dict"].items()
            if key.startswith(prefix)
        }
    elif convert is not None:
        state = convert(source)
    else:
        raise UserError(f"params={source!r}: not a checkpoint ({', '.join(CHECKPOINT_SUFFIXES)}) or safetensors file")
    check_fits(model.state_dict(), state, f"params={source!r}")
    model.load_state_dict(state, strict=False)


def _read_safetensors(source: str) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(source).is_file():
        raise UserError(f"params={source!r}: no such file")
    try:
        return load_file(source)
    except SafetensorError as error:
        raise UserError(f"params={source!r}: not a readable safetensors file: {error}") from error


def check_fits(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Checks that weights are those of a model.

    Args:
        expected: the model's own state dict.
        state: the weights.
        source: where they come from, for the message.

    Raises:
        UserError: if there is too much or too little of them, or if a shape differs; the message names the first.
    """
    # A file of weights may hold those that are shared only once.
    storages = {value.data_ptr() for key, value in expected.items() if key in state}
    missing = [key for key, value in expected.items() if key not in state and value.data_ptr() not in storages]
    surplus = [key for key in state if key not in expected]
    if missing or surplus:
        what, keys = ("lacks", missing) if missing else ("has the unknown", surplus)
        raise UserError(f"{source}: does not fit the model: it {what} {keys[0]!r} ({len(keys)} such)")
    for key, value in state.items():
        if value.shape != expected[key].shape:
            raise UserError(
                f"{source}: does not fit the model: {key!r} has shape {tuple(value.shape)}, "
                f"the model's has {tuple(expected[key].shape)}"
            )
