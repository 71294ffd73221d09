"""Loading a model's weights from where ``params`` points. Imports torch when it is called."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from perceiver_registry.errors import PluginError, UserError
from perceiver_registry.formats import Source, open_source

if TYPE_CHECKING:
    from torch import Tensor, nn

    from perceiver_core import PerceiverIO

OF_ENCODER = ("input_adapter.", "encoder.")
"""What the names of an encoder's weights begin with."""

LISTED = 6
"""How many misfits an error lists."""


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
    if config.params is not None:
        load_params(model, config.params)
    else:
        load_encoder(model, config.encoder.params)


def load_params(model: nn.Module, source: str) -> None:
    """Loads all of ``model``'s weights from ``source``.

    Args:
        model: the model, whose parameters are overwritten.
        source: a model in any format that is read: a checkpoint, a safetensors file, a folder, a hub id.

    Raises:
        UserError: if there is nothing at ``source``, or if its weights do not fit the model.
    """
    where = f"params={source!r}"
    opened = _open(source, where)
    state = _weights(opened, where)
    with opened.loading():
        check_fits(model.state_dict(), state, where)
    model.load_state_dict(state, strict=False)


def load_encoder(model: nn.Module, source: str) -> None:
    """Loads the weights of ``model``'s input adapter and encoder from a model that may have another decoder.

    Args:
        model: the model, whose parameters are overwritten.
        source: as in :func:`load_params`.

    Raises:
        UserError: if there is nothing at ``source``, or if its encoder is not of the model's kind and shape.
    """
    where = f"encoder.params={source!r}"
    opened = _open(source, where)
    state, expected = (
        {key: value for key, value in whole.items() if key.startswith(OF_ENCODER)}
        for whole in (_weights(opened, where), model.state_dict())
    )
    with opened.loading():
        check_fits(expected, state, where)
    model.load_state_dict(state, strict=False)


def _open(source: str, where: str) -> Source:
    with _naming_field(source, where):
        return open_source(source)


def _weights(source: Source, where: str) -> Mapping[str, Tensor]:
    with _naming_field(source.path, where):
        return source.weights()


@contextlib.contextmanager
def _naming_field(source: str, where: str) -> Iterator[None]:
    """Name the config's field, instead of the source alone, in user errors that are raised within this context."""
    try:
        yield
    except PluginError:
        raise
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix(f'{source}: ')}") from error


def check_fits(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Checks that weights are those of a model.

    Args:
        expected: the model's own state dict.
        state: the weights.
        source: where they come from, for the message.

    Raises:
        UserError: if there is too much or too little of them, or if a shape differs; the message lists what.
    """
    for key, value in state.items():
        if not hasattr(value, "shape"):
            raise UserError(f"{source}: {key!r} is no tensor: the file is damaged")
    misfits = [*_missing(expected, state), *_unfitting(expected, state)]
    if misfits:
        more = f"; and {len(misfits) - LISTED} more" if len(misfits) > LISTED else ""
        raise UserError(f"{source}: does not fit the model: {'; '.join(misfits[:LISTED])}{more}")
    # A model's own masks may hold infinity.
    check_finite({key: value for key, value in state.items() if _is_finite(expected[key])}, source)


def _missing(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Iterator[str]:
    # A file of weights may hold those that are shared only once.
    storages = {value.data_ptr() for key, value in expected.items() if key in state}
    for key, value in expected.items():
        if key not in state and value.data_ptr() not in storages:
            yield f"{key!r} is missing"


def _unfitting(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Iterator[str]:
    yield from (f"{key!r} is unknown" for key in state if key not in expected)
    for key, value in state.items():
        if key in expected and value.shape != expected[key].shape:
            yield f"{key!r} has shape {tuple(value.shape)}, the model's has {tuple(expected[key].shape)}"


def check_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """Check that weights are numbers.

    Args:
        weights: the weights by name.
        source: where they come from, for the message.

    Raises:
        UserError: if one of them holds NaN or infinity.
    """
    bad = [name for name, value in weights.items() if not _is_finite(value)]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise UserError(
            f"{source}: {bad[0]!r}{more} {'are' if more else 'is'} not finite (NaN or infinite): the training of this "
            "model failed (use an earlier checkpoint)"
        )


def _is_finite(value: Tensor) -> bool:
    # torch implements no test for the 8-bit formats.
    return not value.is_floating_point() or value.itemsize == 1 or bool(value.isfinite().all())
