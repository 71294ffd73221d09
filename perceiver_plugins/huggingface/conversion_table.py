"""Table of the convertible classes of transformers. Modules of conversions are imported on use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from perceiver_core import DecoderConfig, EncoderConfig, LatentsDecoderConfig
from perceiver_plugins.classification.config import ClassificationDecoderConfig, RegressionDecoderConfig
from perceiver_plugins.flow.config import FlowPatchesEncoderConfig, OpticalFlowDecoderConfig
from perceiver_plugins.huggingface.model_type import HEADLESS
from perceiver_plugins.huggingface.problem_types import REGRESSION
from perceiver_plugins.image.config import ImageConvEncoderConfig, ImageLearnedEncoderConfig, ImagePixelsEncoderConfig
from perceiver_plugins.multimodal.config import AudioVideoLabelDecoderConfig, AudioVideoLabelEncoderConfig
from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig
from perceiver_registry import UserError, registry
from perceiver_registry.assemble import require_perceiver_io

if TYPE_CHECKING:
    import transformers

    from perceiver_core import Model
    from perceiver_plugins.huggingface.conversion import Conversion


class Row(NamedTuple):
    """Class of transformers, and the adapters of the equivalent models of this project.

    Attributes:
        architecture: name of the class, as in ``architectures`` of a configuration.
        encoder: configuration class of the encoder.
        decoder: configuration class of the decoder.
        module: module of this package with the conversion in its ``CONVERSIONS``.
    """

    architecture: str
    encoder: type[EncoderConfig]
    decoder: type[DecoderConfig]
    module: str

    def conversion(self) -> Conversion:
        """Import and return the conversion."""
        module = importlib.import_module(f"perceiver_plugins.huggingface.{self.module}")
        key = (self.architecture, self.encoder)
        found: Conversion = next(each for each in module.CONVERSIONS if (each.architecture, each.encoder) == key)
        if self.decoder is not RegressionDecoderConfig:
            return found
        from perceiver_plugins.huggingface.classifiers import as_regression

        return as_regression(found)


IMAGE_CLASSIFIER = "PerceiverForImageClassification"

CLASSES = (
    Row("PerceiverForMaskedLM", TextEncoderConfig, TextDecoderConfig, "text"),
    Row("PerceiverForSequenceClassification", TextEncoderConfig, ClassificationDecoderConfig, "text"),
    Row(f"{IMAGE_CLASSIFIER}Learned", ImageLearnedEncoderConfig, ClassificationDecoderConfig, "image"),
    Row(f"{IMAGE_CLASSIFIER}Fourier", ImagePixelsEncoderConfig, ClassificationDecoderConfig, "image"),
    Row(f"{IMAGE_CLASSIFIER}ConvProcessing", ImageConvEncoderConfig, ClassificationDecoderConfig, "image"),
    Row("PerceiverForOpticalFlow", FlowPatchesEncoderConfig, OpticalFlowDecoderConfig, "flow"),
    Row("PerceiverForMultimodalAutoencoding", AudioVideoLabelEncoderConfig, AudioVideoLabelDecoderConfig, "multimodal"),
)

CLASSIFIERS = tuple(row for row in CLASSES if row.decoder is ClassificationDecoderConfig)

REGRESSORS = tuple(row._replace(decoder=RegressionDecoderConfig) for row in CLASSIFIERS)
"""Rows of classifiers with ``problem_type="regression"``."""

ENCODERS = tuple(Row(HEADLESS, row.encoder, LatentsDecoderConfig, "headless") for row in CLASSIFIERS)
"""Rows of the classifiers' encoders, each with its input preprocessor."""


def conversion_of(architecture: str | None, source: str, problem_type: str | None = None) -> Conversion:
    """Return the conversion of a class of transformers with a decoder.

    Args:
        architecture: name of the class; None if the configuration has no ``architectures``.
        source: source of the model, for messages.
        problem_type: ``problem_type`` of the configuration.

    Raises:
        UserError: if the class is not in the table.
    """
    rows = [row for row in (*CLASSES, *REGRESSORS) if row.architecture == architecture]
    if rows:
        return rows[-1 if problem_type == REGRESSION else 0].conversion()
    name = architecture or "Perceiver without a task"
    known = ", ".join(row.architecture for row in CLASSES)
    raise UserError(f"{source}: {name} cannot be converted (convertible classes: {known}, {HEADLESS})")


def conversion_at(source: str) -> tuple[Conversion, transformers.PerceiverConfig]:
    """Return the conversion of a published model, and the model's configuration.

    Args:
        source: a folder in the hub's layout, or a hub id.

    Raises:
        UserError: if the model does not exist, if its class is not in the table, or if the hub cannot be reached.
    """
    from perceiver_plugins.huggingface.conversion import load_config, load_shapes

    config = load_config(source)
    architecture = next(iter(config.architectures or ()), None)
    if architecture != HEADLESS:
        return conversion_of(architecture, source, config.problem_type), config
    from perceiver_plugins.huggingface.headless import infer_conversion

    return infer_conversion(config, load_shapes(source), source), config


def conversion_of_model(model: Any) -> Conversion:
    """Return the conversion of a model of transformers.

    Raises:
        UserError: if its class is not in the table.
    """
    architecture = type(model).__name__
    if architecture != HEADLESS:
        return conversion_of(architecture, "model", model.config.problem_type)
    from perceiver_plugins.huggingface.headless import infer_conversion

    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    return infer_conversion(model.config, shapes, "model")


def conversion_for(model: Model) -> Conversion:
    """Return the conversion to the class of transformers with the adapters of ``model``, or else its input adapter.

    Raises:
        UserError: if no class in the table has the model's architecture and input adapter.
    """
    config = model.config
    require_perceiver_io(config, "conversion to a class of transformers")
    rows = [row for row in (*CLASSES, *REGRESSORS, *ENCODERS) if row.encoder is type(config.encoder)]
    fitting = [row for row in rows if row.decoder is type(config.decoder)]
    if not rows:
        entry = registry().adapter_of("input", config.encoder)
        raise UserError(
            f"the input adapter {entry.name!r} ({entry.plugin}) cannot be converted to a class of transformers"
        )
    return (fitting or rows)[0].conversion()
