"""Formats of transformers: the layout of its Perceivers, and that of the zoo's classes.

transformers is imported when a model is read or written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_plugins.checkpoints.formats import loaded
from perceiver_plugins.huggingface.model_type import MODEL_TYPE
from perceiver_plugins.sdk.hub import config_of
from perceiver_registry import Format, LoadedModel, ModelDescription, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from perceiver_core import Batch, PerceiverIO


class HuggingFaceFormat(Format):
    """Layout of transformers' Perceivers. Also converts models in memory."""

    def recognises(self, source: str) -> bool:
        return config_of(source).get("model_type") == "perceiver"

    def description(self, source: str) -> ModelDescription:
        from perceiver_plugins.huggingface.conversion_table import conversion_at

        conversion, config = conversion_at(source)
        return conversion.description(config, source)

    def weights(self, source: str) -> Mapping[str, Tensor]:
        from perceiver_plugins.huggingface.conversion import load_state
        from perceiver_plugins.huggingface.conversion_table import conversion_at

        conversion, config = conversion_at(source)
        return conversion.from_state(
            conversion.build_config(config), load_state(conversion.model_type, source, conversion.kind)
        )

    def read(self, source: str) -> LoadedModel:
        return loaded(self.description(source), self.weights(source), source)

    def refusal(self, loaded: LoadedModel) -> str | None:
        from perceiver_plugins.huggingface.conversion_table import conversion_for

        model: Any = loaded.model
        try:
            conversion_for(model).check(model)
        except (UserError, ValueError) as error:
            return str(error)
        return None

    def write(self, loaded: LoadedModel, target: str) -> None:
        from perceiver_plugins.huggingface.conversion import quiet
        from perceiver_plugins.huggingface.conversion_table import conversion_for

        model: Any = loaded.model
        conversion = conversion_for(model)
        try:
            hf_model = conversion.to_hugging_face(model)
        except ValueError as error:
            raise UserError(str(error)) from error
        processor = conversion.processor(model.config, loaded.description.data)
        Path(target).mkdir()
        with quiet(target):
            hf_model.save_pretrained(target)
            if processor is not None:
                processor.save_pretrained(target)

    def expected(self, model: Any, batch: Batch) -> Any:
        from perceiver_plugins.huggingface.conversion_table import conversion_for

        return conversion_for(model).outputs(model, batch)

    def compute(self, target: str, batch: Batch) -> Any:
        """Compute the output of transformers' model."""
        from perceiver_plugins.huggingface.conversion import quiet
        from perceiver_plugins.huggingface.conversion_table import conversion_at

        conversion, _ = conversion_at(target)
        with quiet(target):
            hf_model = conversion.model_type.from_pretrained(target).eval()
        return conversion.compute(hf_model, batch)

    def from_hugging_face(self, model: Any) -> PerceiverIO:
        """Convert a model of transformers; see :func:`perceiver_registry.from_hugging_face`."""
        from perceiver_plugins.huggingface.conversion_table import conversion_of_model

        return conversion_of_model(model).from_hugging_face(model)

    def to_hugging_face(self, model: PerceiverIO) -> Any:
        """Convert a model to transformers; see :func:`perceiver_registry.to_hugging_face`."""
        from perceiver_plugins.huggingface.conversion_table import conversion_for

        return conversion_for(model).to_hugging_face(model)


class ZooFormat(Format):
    """Folders of the zoo's classes, with tokenizer or image processor and model card."""

    def refusal(self, loaded: LoadedModel) -> str | None:
        try:
            from perceiver_plugins.huggingface.zoo_config import require_supported

            require_supported(loaded.model.config, "conversion to a folder for transformers")
        except UserError as error:
            return str(error)
        return None

    def recognises(self, source: str) -> bool:
        return config_of(source).get("model_type") == MODEL_TYPE

    def description(self, source: str) -> ModelDescription:
        from perceiver_plugins.huggingface.wrap import description_at

        return description_at(source)

    def read(self, source: str) -> LoadedModel:
        from perceiver_plugins.huggingface.wrap import load

        return LoadedModel(*load(source))

    def write(self, loaded: LoadedModel, target: str) -> None:
        from perceiver_plugins.huggingface.conversion import quiet
        from perceiver_plugins.huggingface.wrap import to_zoo_model

        Path(target).mkdir()
        with quiet(target):
            to_zoo_model(loaded).save_pretrained(target)
