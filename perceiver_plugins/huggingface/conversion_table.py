"""Table of the classes of transformers that are converted. The module of a conversion is imported when it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

from perceiver_core import DecoderConfig, EncoderConfig
from perceiver_plugins.classification.config import ClassificationDecoderConfig
from perceiver_plugins.flow.config import FlowPatchesEncoderConfig, OpticalFlowDecoderConfig
from perceiver_plugins.image.config import ImageConvEncoderConfig, ImageLearnedEncoderConfig, ImagePixelsEncoderConfig
from perceiver_plugins.multimodal.config import AudioVideoLabelDecoderConfig, AudioVideoLabelEncoderConfig
from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig
from perceiver_registry import UserError, registry

if TYPE_CHECKING:
    import transformers

    from perceiver_core import PerceiverIO
    from perceiver_plugins.huggingface.conversion import Conversion


class Row(NamedTuple):
    """A class of transformers and the models here that are converted from and to it.

    Attributes:
        architecture: name of the class, which its configurations give as ``architectures``.
        encoder: the class of its encoder's configuration here.
        decoder: that of its decoder's.
        module: name of the module of this package that has the conversion in its ``CONVERSIONS``.
    """

    architecture: str
    encoder: type[EncoderConfig]
    decoder: type[DecoderConfig]
    module: str

    def conversion(self) -> Conversion:
        """Import and return the conversion."""
        module = importlib.import_module(f"perceiver_plugins.huggingface.{self.module}")
        return next(each for each in module.CONVERSIONS if each.architecture == self.architecture)


IMAGE_CLASSIFIER = "PerceiverForImageClassification"

TABLE = (
    Row("PerceiverForMaskedLM", TextEncoderConfig, TextDecoderConfig, "text"),
    Row("PerceiverForSequenceClassification", TextEncoderConfig, ClassificationDecoderConfig, "text"),
    Row(f"{IMAGE_CLASSIFIER}Learned", ImageLearnedEncoderConfig, ClassificationDecoderConfig, "image"),
    Row(f"{IMAGE_CLASSIFIER}Fourier", ImagePixelsEncoderConfig, ClassificationDecoderConfig, "image"),
    Row(f"{IMAGE_CLASSIFIER}ConvProcessing", ImageConvEncoderConfig, ClassificationDecoderConfig, "image"),
    Row("PerceiverForOpticalFlow", FlowPatchesEncoderConfig, OpticalFlowDecoderConfig, "flow"),
    Row("PerceiverForMultimodalAutoencoding", AudioVideoLabelEncoderConfig, AudioVideoLabelDecoderConfig, "multimodal"),
)


def conversion_of(architecture: str | None, source: str) -> Conversion:
    """Return the conversion of a class of transformers.

    Args:
        architecture: name of the class. None: a configuration that names none.
        source: where a model of that class is, for messages.

    Raises:
        UserError: if the class is not in the table.
    """
    for row in TABLE:
        if row.architecture == architecture:
            return row.conversion()
    what = architecture or "Perceiver without a task"
    known = ", ".join(row.architecture for row in TABLE)
    raise UserError(f"{source}: a {what}, which cannot be converted (classes that can: {known})")


def conversion_at(source: str) -> tuple[Conversion, transformers.PerceiverConfig]:
    """Return the conversion that fits the published model at ``source``, and the model's configuration.

    Args:
        source: a folder in the hub's layout, or a hub id.

    Raises:
        UserError: if there is no such model, if its class is not in the table, or if the hub cannot be reached.
    """
    from perceiver_plugins.huggingface.conversion import load_config

    config = load_config(source)
    return conversion_of(next(iter(config.architectures or ()), None), source), config


def conversion_for(model: PerceiverIO) -> Conversion:
    """Return the conversion to the class of transformers that is the likeliest to be able to express ``model``.

    Raises:
        UserError: if no class in the table has the model's input adapter.
    """
    config = model.config
    rows = [row for row in TABLE if row.encoder is type(config.encoder)]
    fitting = [row for row in rows if row.decoder is type(config.decoder)]
    if not rows:
        entry = registry().adapter_of("input", config.encoder)
        raise UserError(f"the input adapter {entry.name!r} ({entry.plugin}) converts to no class of transformers")
    return (fitting or rows)[0].conversion()
