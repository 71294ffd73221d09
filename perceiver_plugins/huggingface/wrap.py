"""From models here to models of ``transformers``, and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from perceiver_core import PerceiverConfig, PerceiverIO
from perceiver_plugins.huggingface.conversion import quiet
from perceiver_plugins.huggingface.image_processor import ZooImageProcessor
from perceiver_plugins.huggingface.model_card import Run
from perceiver_plugins.huggingface.tokenizers import tokenizer_of
from perceiver_plugins.huggingface.zoo_config import ZooConfig
from perceiver_plugins.huggingface.zoo_models import ZooForMaskedLM, ZooModel, model_class
from perceiver_plugins.huggingface.zoo_tokenizer import ZooTokenizer
from perceiver_plugins.sdk.errors import one_line
from perceiver_plugins.sdk.hub import hub
from perceiver_plugins.text.tokenizers import serialize_tokenizer
from perceiver_registry import LoadedModel, ModelDescription, UserError, read_model


def from_checkpoint(path: str | Path) -> ZooModel:
    """The model in a checkpoint, in the class of its task, with its tokenizer or image processor and its model card.

    ``from_checkpoint("best.ckpt").save_pretrained("folder")`` writes all of it.

    Args:
        path: the checkpoint, or a model in any other format that is read.

    Raises:
        UserError: if there is no model.
        PluginError: if it needs an adapter that is not installed; the message says what to install.
    """
    return to_zoo_model(read_model(str(path)))


def to_zoo_model(loaded: LoadedModel) -> ZooModel:
    """A model in the class of its task, with copies of its weights, its tokenizer or image processor, and its run."""
    config = ZooConfig.from_description(loaded.description)
    model_config = config.model_config()
    model = model_class(model_config)(config)
    model.perceiver.load_state_dict(loaded.model.state_dict())
    model.processor = _processor(model, model_config, loaded.description.data)
    model.run = Run.of_description(loaded.description)
    return model.eval()


def load(source: str | Path) -> tuple[PerceiverIO, ModelDescription]:
    """The model in a folder that ``save_pretrained`` wrote, or at a hub id, as it was before it was wrapped.

    Returns:
        The model, and the description of a checkpoint with it.

    Raises:
        UserError: if there is no such model at ``source``, or the hub cannot be reached.
        PluginError: if it needs an adapter that is not installed; the message says what to install.
    """
    source = str(source)
    with _reading(source):
        description = description_at(source)
        description.note_versions(source)
        with description.loading(source):
            return ZooModel.from_pretrained(source).perceiver.eval(), description


def description_at(source: str) -> ModelDescription:
    """The description of the model that :func:`load` loads.

    Raises:
        UserError: as of :func:`load`.
    """
    with _reading(source):
        config = ZooConfig.from_pretrained(source)
        config.name_or_path = source  # for messages
        config.model_config()  # which says what is missing
        return _description(config, source)


@contextlib.contextmanager
def _reading(source: str) -> Iterator[None]:
    try:
        with hub(), quiet(source):
            yield
    except UserError:
        raise
    except Exception as error:  # files that are something else fail in any way
        raise UserError(f"{source}: no model of the zoo can be loaded from there: {one_line(error)}") from error


def _description(config: ZooConfig, source: str) -> ModelDescription:
    description = config.description
    data = description.data
    if "tokenizer" in data and data["tokenizer"] is None:
        # It puts special tokens around a text by itself, those at its end included.
        tokenizer = serialize_tokenizer(ZooTokenizer.from_pretrained(source))
        data = {**data, "tokenizer": tokenizer, "add_special_tokens": True, "add_eos_token": False}
    return replace(description, data=data).prepare(source)


def _processor(model: ZooModel, config: PerceiverConfig[Any, Any], data: Mapping[str, Any]) -> Any:
    """What turns texts or images into batches, if the checkpoint says how."""
    if model.main_input_name == "input_ids" and "tokenizer" in data:
        limits = (data.get("max_seq_len"), getattr(config.encoder, "max_seq_len", None))
        max_length = min(limit for limit in (*limits, 2**31 - 1) if limit)
        return tokenizer_of(data, max_length, masks=isinstance(model, ZooForMaskedLM))
    if model.main_input_name == "pixel_values" and "image_size" in data:
        return ZooImageProcessor.from_description(data)
    return None
