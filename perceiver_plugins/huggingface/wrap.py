"""Conversion between models of the zoo and :class:`~perceiver_plugins.huggingface.zoo_models.ZooModel`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from perceiver_core import Model, ModelConfig
from perceiver_plugins.huggingface.conversion import quiet
from perceiver_plugins.huggingface.image_processor import ZooImageProcessor
from perceiver_plugins.huggingface.model_card import Run
from perceiver_plugins.huggingface.tokenizers import create_tokenizer
from perceiver_plugins.huggingface.zoo_config import ZooConfig, is_causal
from perceiver_plugins.huggingface.zoo_models import ZooForCausalLM, ZooForMaskedLM, ZooModel, model_class
from perceiver_plugins.huggingface.zoo_tokenizer import ZooTokenizer
from perceiver_plugins.sdk.errors import one_line
from perceiver_plugins.sdk.hub import hub
from perceiver_plugins.text.data.causal import document_bounds
from perceiver_plugins.text.tokenizers import serialize_tokenizer
from perceiver_registry import LoadedModel, ModelDescription, UserError, read_model

UNLIMITED = 2**31 - 1
"""Length of inputs that is never reached."""


def from_checkpoint(path: str | Path) -> ZooModel:
    """Load a checkpoint as the model class of its task, with tokenizer or image processor and model card.

    ``from_checkpoint("best.ckpt").save_pretrained("folder")`` writes all of them.

    Args:
        path: the checkpoint, or a model in any other readable format.

    Raises:
        UserError: if it cannot be read.
        PluginError: if it needs an adapter that is not installed; the message names what to install.
    """
    return to_zoo_model(read_model(str(path)))


def to_zoo_model(loaded: LoadedModel) -> ZooModel:
    """Wrap a model in the class of its task, with tokenizer or image processor and run. Weights are copied."""
    config = ZooConfig.from_description(loaded.description)
    model_config = config.model_config()
    model = model_class(model_config)(config)
    model.perceiver.load_state_dict(loaded.model.state_dict())
    model.processor = _processor(model, model_config, loaded.description.data)
    model.run = Run.from_description(loaded.description)
    if isinstance(model, ZooForCausalLM) and model.processor is not None:
        model.generation_config = _generation_config(model.processor)
    return model.eval()


def load(source: str | Path) -> tuple[Model, ModelDescription]:
    """Load a model from a hub id or a folder written by ``save_pretrained``, without its wrapper.

    Returns:
        The model and its description.

    Raises:
        UserError: if ``source`` is not such a model, or if the hub cannot be reached.
        PluginError: if it needs an adapter that is not installed; the message names what to install.
    """
    source = str(source)
    with _reading(source):
        description = description_at(source)
        description.note_versions(source)
        with description.loading(source):
            return ZooModel.from_pretrained(source).perceiver.eval(), description


def description_at(source: str) -> ModelDescription:
    """Return the description of a model that :func:`load` loads.

    Raises:
        UserError: as :func:`load`.
    """
    with _reading(source):
        config = ZooConfig.from_pretrained(source)
        config.name_or_path = source  # for messages
        config.model_config()  # raises an error if a plugin is missing
        return _description(config, source)


@contextlib.contextmanager
def _reading(source: str) -> Iterator[None]:
    try:
        with hub(), quiet(source):
            yield
    except UserError:
        raise
    except Exception as error:  # files of other kinds can raise any error
        raise UserError(f"{source}: cannot load a model of the zoo: {one_line(error)}") from error


def _description(config: ZooConfig, source: str) -> ModelDescription:
    description = config.description
    data = description.data
    if "tokenizer" in data and data["tokenizer"] is None:
        # The tokenizer itself adds special tokens before and after a text.
        tokenizer = serialize_tokenizer(ZooTokenizer.from_pretrained(source))
        data = {**data, "tokenizer": tokenizer, "add_special_tokens": True, "add_eos_token": False}
    return replace(description, data=data).prepare(source)


def _generation_config(tokenizer: ZooTokenizer) -> GenerationConfig:
    """Return the tokens with which generation begins and ends. A token that begins a document also ends the text."""
    begin, end = document_bounds(tokenizer)
    ends = list(dict.fromkeys((end, begin)))
    return GenerationConfig(bos_token_id=begin, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)


def _processor(model: ZooModel, config: ModelConfig[Any, Any], data: Mapping[str, Any]) -> Any:
    """Return the tokenizer or image processor, if the data are described."""
    if model.main_input_name == "input_ids" and "kind" in data.get("tokenizer", {}):  # of texts, not of music
        if is_causal(config):  # the window slides over prompts of any length
            return create_tokenizer(data, UNLIMITED, masks=False, prompts=True)
        limits = (data.get("max_seq_len"), getattr(config.encoder, "max_seq_len", None))
        max_length = min(limit for limit in (*limits, UNLIMITED) if limit)
        return create_tokenizer(data, max_length, masks=isinstance(model, ZooForMaskedLM))
    if model.main_input_name == "pixel_values" and "image_size" in data:
        return ZooImageProcessor.from_description(data)
    return None
