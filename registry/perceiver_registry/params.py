"""Loading of pretrained weights (``params``). Torch is imported inside functions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from perceiver_registry.errors import PluginError, UserError
from perceiver_registry.formats import Source, open_source

if TYPE_CHECKING:
    from torch import Tensor, nn

    from perceiver_core import Model

ENCODER_PREFIXES = ("input_adapter.", "encoder.")
"""Prefixes of the weights of input adapter and encoder in a model's state dict."""

MAX_LISTED = 6
"""Maximum number of mismatches that an error lists. Arbitrary."""


def load_pretrained(model: Model) -> None:
    """Load the weights that a model's configuration names, in ``params`` or in ``encoder.params``.

    Args:
        model: the model, modified in place.

    Raises:
        UserError: if both are set, or if the source is missing or does not fit the model.
    """
    config: Any = model.config
    if config.params is None and config.encoder.params is None:
        return
    if config.params is not None and config.encoder.params is not None:
        raise UserError("model.params and model.encoder.params: set only one (model.params includes the encoder)")
    if config.params is not None:
        load_params(model, config.params)
    else:
        load_encoder(model, config.encoder.params)


def load_params(model: nn.Module, source: str) -> None:
    """Load all weights of a model.

    Args:
        model: the model, modified in place.
        source: a checkpoint, a safetensors file, a folder, a hub id, or any other registered format.

    Raises:
        UserError: if the source is missing, or if its weights do not fit the model.
    """
    where = f"params={source!r}"
    opened = _open(source, where)
    state = _weights(opened, where)
    with opened.loading():
        check_fits(model.state_dict(), state, where)
    model.load_state_dict(state, strict=False)


def load_encoder(model: nn.Module, source: str) -> None:
    """Load the weights of a model's input adapter and encoder from a model that may have another decoder.

    Args:
        model: the model, modified in place.
        source: as in :func:`load_params`.

    Raises:
        UserError: if the source is missing, or if its encoder does not fit the model.
    """
    where = f"encoder.params={source!r}"
    opened = _open(source, where)
    state, expected = (
        {key: value for key, value in whole.items() if key.startswith(ENCODER_PREFIXES)}
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
    """Prefix user errors that are raised within this context with the config's field."""
    try:
        yield
    except PluginError:
        raise
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix(f'{source}: ')}") from error


def check_fits(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Check that weights fit a model.

    Args:
        expected: the model's state dict.
        state: the weights.
        source: their source, for messages.

    Raises:
        UserError: if weights are missing, unknown, of another shape or not finite; the message lists them.
    """
    for key, value in state.items():
        if not hasattr(value, "shape"):
            raise UserError(f"{source}: {key!r} is not a tensor (the file is damaged)")
    mismatches = [*_missing(expected, state), *_unfitting(expected, state)]
    if mismatches:
        more = f"; and {len(mismatches) - MAX_LISTED} more" if len(mismatches) > MAX_LISTED else ""
        raise UserError(f"{source}: does not fit the model: {'; '.join(mismatches[:MAX_LISTED])}{more}")
    # Buffers such as masks may be infinite.
    check_finite({key: value for key, value in state.items() if _is_finite(expected[key])}, source)


def _missing(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Iterator[str]:
    # Files may store shared weights once.
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
    """Check that weights are finite.

    Args:
        weights: the weights by name.
        source: their source, for messages.

    Raises:
        UserError: if one of them has NaN or infinite values.
    """
    bad = [name for name, value in weights.items() if not _is_finite(value)]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise UserError(
            f"{source}: {bad[0]!r}{more} {'are' if more else 'is'} not finite (NaN or infinite): the training of this "
            "model failed (use an earlier checkpoint)"
        )


def _is_finite(value: Tensor) -> bool:
    # isfinite is not implemented for 8-bit formats.
    return not value.is_floating_point() or value.itemsize == 1 or bool(value.isfinite().all())
