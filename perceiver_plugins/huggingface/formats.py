"""The layout of the zoo's models on the hub, as a format. Imports nothing heavy before a model is read or written."""

from __future__ import annotations

from pathlib import Path

from perceiver_plugins.sdk.published import config_of
from perceiver_registry import Format, LoadedModel, ModelDescription

MODEL_TYPE = "perceiver-zoo"
"""What a ``config.json`` calls such a model."""


class ZooFormat(Format):
    """Folders that the zoo's classes write, with tokenizer or image processor and model card."""

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
        from perceiver_plugins.huggingface.wrap import wrap

        Path(target).mkdir()
        with quiet(target):
            wrap(loaded).save_pretrained(target)
