"""Loading a model's weights from where ``params`` points. Imports torch when it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_registry.checkpoint import read_checkpoint
from perceiver_registry.errors import UserError
from perceiver_registry.registry import registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from perceiver_core import PerceiverIO

    Convert = Callable[[str], Mapping[str, Tensor]]

CHECKPOINT_SUFFIXES = (".ckpt", ".pt")

OF_ENCODER = ("input_adapter.", "encoder.")
"""What the names of an encoder's weights begin with."""

LISTED = 6
"""How many misfits an error lists."""


def is_checkpoint(source: str) -> bool:
    """Whether ``source`` names a checkpoint file by its suffix."""
    return source.endswith(CHECKPOINT_SUFFIXES)


def is_published(source: str) -> bool:
    """Whether ``source`` is a folder or the id of a published model, not a file of weights."""
    return not (is_checkpoint(source) or source.endswith(".safetensors"))


def load_pretrained(model: PerceiverIO) -> None:
    """Loads the weights that a model's configuration names: ``params``, or those of its encoder, ``encoder.params``.

    Args:
        model: the model, whose parameters are overwritten.

    Raises:
        UserError: if both are given, if there is nothing where they point, or if it does not fit the model.
    """
    config = model.config
    if config.params is None and config.encoder.params is None:
        return
    if config.params is not None and config.encoder.params is not None:
        raise UserError("model.params and model.encoder.params: give one of the two; the first has an encoder as well")
    entry = registry().adapter_of("input", config.encoder)
    convert = entry.resolve("conversions").convert_params if entry.spec.conversions else None
    if config.params is not None:
        load_params(model, config.params, convert)
    else:
        load_encoder(model, config.encoder.params, convert)


def load_params(model: nn.Module, source: str, convert: Convert | None = None) -> None:
    """Loads all of ``model``'s weights from ``source``.

    Args:
        model: the model, whose parameters are overwritten.
        source: a checkpoint of this project, a safetensors file, or, where ``convert`` is given, a folder in the
            hub's layout or a hub id.
        convert: turns a folder or id into a state dict of ``model``.

    Raises:
        UserError: if there is nothing at ``source``, or if its weights do not fit the model.
    """
    where = f"params={source!r}"
    state = _read_state(source, where, convert)
    check_fits(model.state_dict(), state, where)
    model.load_state_dict(state, strict=False)


def load_encoder(model: nn.Module, source: str, convert: Convert | None = None) -> None:
    """Loads the weights of ``model``'s input adapter and encoder from a model that may have another decoder.

    Args:
        model: the model, whose parameters are overwritten.
        source: as in :func:`load_params`.
        convert: turns a folder or id into a state dict of a whole model.

    Raises:
        UserError: if there is nothing at ``source``, or if its encoder is not of the model's kind and shape.
    """
    where = f"encoder.params={source!r}"
    state, expected = (
        {key: value for key, value in whole.items() if key.startswith(OF_ENCODER)}
        for whole in (_read_state(source, where, convert), model.state_dict())
    )
    check_fits(expected, state, where)
    model.load_state_dict(state, strict=False)


def _read_state(source: str, where: str, convert: Convert | None) -> Mapping[str, Tensor]:
    if source.endswith(".safetensors"):
        return _read_safetensors(source, where)
    if is_checkpoint(source):
        prefix = "model."
        weights = read_checkpoint(source)["state_dict"].items()
        return {key.removeprefix(prefix): value for key, value in weights if key.startswith(prefix)}
    if convert is None:
        raise UserError(f"{where}: not a checkpoint ({', '.join(CHECKPOINT_SUFFIXES)}) or safetensors file")
    return convert(source)


def _read_safetensors(source: str, where: str) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(source).is_file():
        raise UserError(f"{where}: no such file")
    try:
        return load_file(source)
    except SafetensorError as error:
        raise UserError(f"{where}: not a readable safetensors file: {error}") from error


def check_fits(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Checks that weights are those of a model.

    Args:
        expected: the model's own state dict.
        state: the weights.
        source: where they come from, for the message.

    Raises:
        UserError: if there is too much or too little of them, or if a shape differs; the message lists what.
    """
    # A file of weights may hold those that are shared only once.
    storages = {value.data_ptr() for key, value in expected.items() if key in state}
    misfits = [
        f"{key!r} is missing"
        for key, value in expected.items()
        if key not in state and value.data_ptr() not in storages
    ]
    misfits += [f"{key!r} is unknown" for key in state if key not in expected]
    misfits += [
        f"{key!r} has shape {tuple(value.shape)}, the model's has {tuple(expected[key].shape)}"
        for key, value in state.items()
        if key in expected and value.shape != expected[key].shape
    ]
    if misfits:
        more = f"; and {len(misfits) - LISTED} more" if len(misfits) > LISTED else ""
        raise UserError(f"{source}: does not fit the model: {'; '.join(misfits[:LISTED])}{more}")
