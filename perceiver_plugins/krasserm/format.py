"""Read-only format of the models of krasserm/perceiver-io."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from perceiver_plugins.checkpoints.formats import loaded
from perceiver_plugins.krasserm.files import Original, find_model
from perceiver_registry import Format, LoadedModel, ModelDescription, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from perceiver_plugins.krasserm.causal import CausalConversion
    from perceiver_plugins.krasserm.conversion import Conversion


class KrassermFormat(Format):
    """Folders and hub ids with a ``config.json`` of perceiver-io, and training checkpoints."""

    def recognises(self, source: str) -> bool:
        return find_model(source) is not None

    def read(self, source: str) -> LoadedModel:
        original, conversion, config = _open(source)
        return loaded(_description(original, conversion, config), conversion.convert_state(original, config), source)

    def description(self, source: str) -> ModelDescription:
        return _description(*_open(source))

    def weights(self, source: str) -> Mapping[str, Tensor]:
        original, conversion, config = _open(source)
        return conversion.convert_state(original, config)


def _open(source: str) -> tuple[Original, Conversion | CausalConversion, Any]:
    from perceiver_plugins.krasserm.conversion import conversion_of

    original = find_model(source)
    if original is None:
        raise UserError(
            f"{source}: not a model of krasserm/perceiver-io (expected one of its folders, hub ids or training "
            "checkpoints)"
        )
    conversion = conversion_of(original)
    return original, conversion, conversion.convert_config(original)


def _description(original: Original, conversion: Conversion | CausalConversion, config: Any) -> ModelDescription:
    return ModelDescription.create(conversion.task, config, conversion.data(config, original))
