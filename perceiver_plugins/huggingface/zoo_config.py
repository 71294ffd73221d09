"""Configuration of the zoo's models for ``transformers`` (``config.json``)."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers import PretrainedConfig

from perceiver_core import ModelConfig, PerceiverARConfig
from perceiver_plugins.generation.config import NextTokenDecoderConfig, TokenEncoderConfig
from perceiver_plugins.huggingface.model_type import MODEL_TYPE
from perceiver_plugins.huggingface.problem_types import (
    PROBLEM_TYPES,
    REGRESSION,
    classifies_inputs,
    label_names,
    problem_type_of,
    regression_decoder,
    with_labels,
)
from perceiver_registry import ModelDescription, UserError, config_from_dict, config_to_dict, registry
from perceiver_registry.assemble import require_perceiver_io


class ZooConfig(PretrainedConfig):
    """Description of a model as a configuration of ``transformers``.

    Args:
        perceiver: the description (:func:`perceiver_registry.describe`): the model's configuration, the names and
            distributions of task and adapters, and the data. None: no model; ``transformers`` compares configurations
            with such a default.
        kwargs: as for ``transformers.PretrainedConfig``. ``num_labels`` or ``id2label`` change the classes of a
            classifier or the targets of a regressor, and the size of its output layer. ``problem_type`` changes that of
            a classifier.
    """

    model_type = MODEL_TYPE

    def __init__(self, perceiver: Mapping[str, Any] | None = None, **kwargs: Any):
        # The decoder's configuration determines which weights are tied.
        decoder = _decoder(perceiver or {})
        labels = _label_names(decoder)
        if labels and not {"id2label", "num_labels"} & kwargs.keys():
            kwargs = _label_maps(labels) | kwargs
        kwargs["problem_type"] = kwargs.get("problem_type") or problem_type_of(decoder)
        super().__init__(**{"tie_word_embeddings": True, **kwargs})
        self.perceiver = dict(perceiver or {})

    @classmethod
    def from_description(cls, description: ModelDescription, **kwargs: Any) -> ZooConfig:
        """Create a configuration from a description.

        Names have their distribution as prefix, since the reader can have other plugins installed. A tokenizer with a
        vocabulary is replaced by None, since it is saved in its own files.

        Raises:
            UnknownNameError: if a plugin of the description is not installed.
        """
        plain = replace(
            description,
            task=registry().get("task", description.task).full_name,
            model=config_to_dict(config_from_dict(description.model), full_names=True),
            data={name: None if _is_vocabulary(value) else value for name, value in description.data.items()},
        ).to_dict(with_run=False)
        return cls(json.loads(json.dumps(plain)), **kwargs)  # the same as after reading config.json

    @property
    def description(self) -> ModelDescription:
        """Description of the model, with the classes of ``id2label``.

        Raises:
            UserError: if it is missing, damaged or of a newer version of this project, or if ``id2label`` does not fit.
        """
        if not self.perceiver:
            raise UserError(f"{self._source}: has no description of a model of the zoo")
        return ModelDescription.from_dict({**self._labelled(), "run": {}}, self._source)

    @property
    def _source(self) -> str:
        return self.name_or_path or "config.json"

    def _labelled(self) -> dict[str, Any]:
        """Return the description as plain data, with the classes of ``id2label``.

        Raises:
            UserError: if the keys of ``id2label`` are not 0, 1, ..., or if their number cannot be changed, or if the
                problem type is unknown.
        """
        if self.problem_type not in (None, *PROBLEM_TYPES):
            raise UserError(
                f"{self._source}: problem_type={self.problem_type!r}: must be one of {', '.join(PROBLEM_TYPES)}"
            )
        decoder = _decoder(self.perceiver)
        original = _label_names(decoder)
        if original is None:
            return self.perceiver
        names = {int(number): name for number, name in (self.id2label or {}).items()}
        if sorted(names) != [*range(len(names))] or not names:
            raise UserError(f"{self._source}: id2label must name the classes 0, 1, 2, ..., got {sorted(names)}")
        labels = [names[number] for number in range(len(names))]
        if labels == original and self.problem_type in (None, problem_type_of(decoder)):
            return self.perceiver
        model = self.perceiver["model"]
        if len(labels) != len(original) and "num_classes" in model["encoder"]:
            raise UserError(
                f"{self._source}: num_labels={len(labels)}: must be {len(original)}, the number of classes of the "
                "label in the model's input"
            )
        description = {**self.perceiver, "model": {**model, "decoder": self._decoder_with(decoder, labels)}}
        becomes_regressor = self.problem_type == REGRESSION and classifies_inputs(decoder)
        return _as_regression(description, self._source) if becomes_regressor else description

    def _decoder_with(self, decoder: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
        """Return the decoder's configuration with the labels and the problem type.

        Raises:
            UserError: if the problem type would turn a regressor into a classifier.
        """
        if self.problem_type not in (None, REGRESSION) and problem_type_of(decoder) == REGRESSION:
            raise UserError(
                f"{self._source}: problem_type={self.problem_type}: the model is a regressor (leave it out)"
            )
        return with_labels(decoder, labels, self.problem_type)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain data, with the classes of ``id2label`` in the description."""
        values = super().to_dict()
        return values | {"perceiver": copy.deepcopy(self._labelled())} if "perceiver" in values else values

    @property
    def task(self) -> str:
        """Name of the model's task."""
        return self._labelled()["task"]

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary.

        Raises:
            AttributeError: if the model reads no tokens.
        """
        size = self.perceiver.get("model", {}).get("encoder", {}).get("vocab_size")
        if size is None:
            raise AttributeError("the model has no vocabulary")
        return int(size)

    def model_config(self) -> ModelConfig[Any, Any]:
        """Return the model's configuration.

        Raises:
            UserError: if it is missing, of a newer version of this project or of an unsupported architecture, or if
                ``id2label`` does not fit.
            PluginError: if it needs an adapter or task that is not installed; the message names what to install.
        """
        config = self.description.prepare(self._source).build_config(self._source)
        return require_supported(config, self._source)

    def migrate(self) -> ModelDescription:
        """Migrate the description, if an older version of a plugin wrote it, and return it for use.

        Raises:
            UserError: as of :meth:`model_config`.
            PluginError: as of :meth:`model_config`, or if a migration fails.
        """
        description = self.description.prepare(self._source)
        if description.migrations:
            self.perceiver = self.from_description(description).perceiver
        return description


def is_causal(config: Any) -> bool:
    """Return whether a configuration is that of a causal language model."""
    parts = isinstance(config.encoder, TokenEncoderConfig), isinstance(config.decoder, NextTokenDecoderConfig)
    return isinstance(config, PerceiverARConfig) and all(parts)


def require_supported(config: ModelConfig[Any, Any], what: str) -> ModelConfig[Any, Any]:
    """Check that a model is a Perceiver IO or a causal language model, and return its configuration.

    Args:
        config: configuration of the model.
        what: file or function that needs it, with which the message begins.

    Raises:
        UserError: if it has another architecture.
    """
    return config if is_causal(config) else require_perceiver_io(config, what)


def _decoder(description: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the decoder's configuration of a description, as plain data."""
    decoder: Mapping[str, Any] = description.get("model", {}).get("decoder", {})
    return decoder


def _label_names(decoder: Mapping[str, Any]) -> list[str] | None:
    """Return the names of a decoder's classes or targets, by default their indices; None if it has neither."""
    names, number = label_names(decoder)
    return None if number is None else list(names or map(str, range(number)))


def _as_regression(description: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Convert the description of a classifier to that of a regressor with the same weights.

    Raises:
        UserError: if the classifier has several outputs per input.
    """
    classifier = ModelDescription.from_dict({**description, "run": {}}, source)
    config = config_from_dict(classifier.model)
    try:
        regressor = replace(config, decoder=regression_decoder(config.decoder))
    except ValueError as error:
        raise UserError(f"{source}: problem_type={REGRESSION}: {error}") from error
    return ZooConfig.from_description(ModelDescription.create("regression", regressor, data=classifier.data)).perceiver


def _label_maps(labels: Sequence[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(labels)), "label2id": {name: number for number, name in enumerate(labels)}}


def _is_vocabulary(value: Any) -> bool:
    return isinstance(value, Mapping) and "json" in value
