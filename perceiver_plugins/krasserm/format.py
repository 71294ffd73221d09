"""Models of krasserm's perceiver-io as a format that is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from perceiver_plugins.checkpoints.formats import loaded
from perceiver_plugins.krasserm.files import Original, find
from perceiver_registry import Format, LoadedModel, ModelDescription, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from perceiver_core import PerceiverConfig
    from perceiver_plugins.krasserm.conversion import Conversion


class KrassermFormat(Format):
    """Folders and hub ids with a ``config.json`` of perceiver-io, and checkpoints of its trainings."""

    def recognises(self, source: str) -> bool:
        return find(source) is not None

    def read(self, source: str) -> LoadedModel:
        original, conversion, config = _opened(source)
        return loaded(_description(original, conversion, config), conversion.convert_state(original, config), source)

    def description(self, source: str) -> ModelDescription:
        return _description(*_opened(source))

    def weights(self, source: str) -> Mapping[str, Tensor]:
        original, conversion, config = _opened(source)
        return conversion.convert_state(original, config)


def _opened(source: str) -> tuple[Original, Conversion, PerceiverConfig[Any, Any]]:
    from perceiver_plugins.krasserm.conversion import conversion_of

    original = find(source)
    if original is None:
        raise UserError(
            f"{source}: no model of krasserm's perceiver-io: one of its folders or hub ids, or a checkpoint (.ckpt) of "
            "its training, is expected"
        )
    conversion = conversion_of(original)
    return original, conversion, conversion.convert_config(original)


def _description(original: Original, conversion: Conversion, config: PerceiverConfig[Any, Any]) -> ModelDescription:
    return ModelDescription.create(conversion.task, config, conversion.data(config, original))
