"""A model of the zoo as one of Hugging Face's configurations: ``config.json``."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers import PretrainedConfig

from perceiver_core import PerceiverConfig
from perceiver_plugins.huggingface.model_type import MODEL_TYPE
from perceiver_registry import ModelDescription, UserError, config_from_dict, config_to_dict, registry


class ZooConfig(PretrainedConfig):
    """The description of a checkpoint of this project as a configuration of ``transformers``.

    Args:
        perceiver: the description (:func:`perceiver_registry.describe`): the model's configuration, the names of its
            task and adapters, the distributions that these are of, and what its data are like. None: no model, which
            ``transformers`` needs for comparison.
        kwargs: as for ``transformers.PretrainedConfig``. ``num_labels`` or ``id2label`` change the classes of a model
            that has classes; its output layer is then of another size.
    """

    model_type = MODEL_TYPE

    def __init__(self, perceiver: Mapping[str, Any] | None = None, **kwargs: Any):
        # What may be tied is; whether weights are shared, the configuration of the decoder says.
        labels = _own_labels(perceiver or {})
        if labels and not {"id2label", "num_labels"} & kwargs.keys():
            kwargs = _label_maps(labels) | kwargs
        super().__init__(**{"tie_word_embeddings": True, **kwargs})
        self.perceiver = dict(perceiver or {})

    @classmethod
    def from_description(cls, description: ModelDescription, **kwargs: Any) -> ZooConfig:
        """The configuration that a checkpoint's description stands for.

        Names are kept with their distributions, since other plugins may be installed where it is read. A tokenizer
        with a vocabulary is None; it has files of its own.

        Raises:
            UnknownNameError: if a plugin that it names is not installed.
        """
        kept = replace(
            description,
            task=registry().get("task", description.task).full_name,
            model=config_to_dict(config_from_dict(description.model), full_names=True),
            data={name: None if _is_vocabulary(value) else value for name, value in description.data.items()},
        ).to_dict(with_run=False)
        return cls(json.loads(json.dumps(kept)), **kwargs)  # so that it is now what it will be when it is read

    @property
    def description(self) -> ModelDescription:
        """The description of the model, with the classes of ``id2label``.

        Raises:
            UserError: if there is none, if it is damaged or was written by a newer version of this project, or if
                ``id2label`` does not fit.
        """
        if not self.perceiver:
            raise UserError(f"{self._source}: describes no model of the zoo")
        return ModelDescription.from_dict({**self._labelled(), "run": {}}, self._source)

    @property
    def _source(self) -> str:
        return self.name_or_path or "config.json"

    def _labelled(self) -> dict[str, Any]:
        """The plain description, with the classes of ``id2label``.

        Raises:
            UserError: if ``id2label`` does not number them from 0 on, or if their number cannot be changed.
        """
        own = _own_labels(self.perceiver)
        if own is None:
            return self.perceiver
        names = {int(number): name for number, name in (self.id2label or {}).items()}
        if sorted(names) != [*range(len(names))] or not names:
            raise UserError(f"{self._source}: id2label must name the classes 0, 1, 2, ..., got {sorted(names)}")
        labels = [names[number] for number in range(len(names))]
        if labels == own:
            return self.perceiver
        model = self.perceiver["model"]
        if len(labels) != len(own) and "num_classes" in model["encoder"]:
            raise UserError(
                f"{self._source}: num_labels={len(labels)}: the model's input has the label too (it takes {len(own)} "
                "classes)"
            )
        decoder = model["decoder"] | {"num_classes": len(labels), "label_names": labels}
        return {**self.perceiver, "model": {**model, "decoder": decoder}}

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain data, in which the description has the classes of ``id2label``."""
        values = super().to_dict()
        return values | {"perceiver": copy.deepcopy(self._labelled())} if "perceiver" in values else values

    @property
    def task(self) -> str:
        """Name of the task that the model was trained for."""
        return self.perceiver["task"]

    def model_config(self) -> PerceiverConfig[Any, Any]:
        """The model's configuration.

        Raises:
            UserError: if there is none, if it was written by a newer version of this project, or if ``id2label`` does
                not fit.
            PluginError: if it needs an adapter or a task that is not installed; the message says what to install.
        """
        return self.description.prepare(self._source).build_config(self._source)

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


def _own_labels(description: Mapping[str, Any]) -> list[str] | None:
    """Return the names of the classes that a description holds, numbers if it has none; None without classes."""
    decoder = description.get("model", {}).get("decoder", {})
    if decoder.get("num_classes") is None:
        return None
    return list(decoder.get("label_names") or map(str, range(decoder["num_classes"])))


def _label_maps(labels: Sequence[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(labels)), "label2id": {name: number for number, name in enumerate(labels)}}


def _is_vocabulary(value: Any) -> bool:
    return isinstance(value, Mapping) and "json" in value
