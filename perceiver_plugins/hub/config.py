"""A model of the zoo as one of Hugging Face's configurations: ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

from perceiver_core import PerceiverConfig
from perceiver_plugins.hub.formats import MODEL_TYPE
from perceiver_registry import UserError, config_from_dict, config_to_dict, registry
from perceiver_registry.checkpoint import FORMAT, require

LEFT_OUT = ("run", "results", "seed")
"""What a checkpoint's description holds for a run that is to be resumed."""


class ZooConfig(PretrainedConfig):
    """The description of a checkpoint of this project as a configuration of ``transformers``.

    Args:
        perceiver: the description (:func:`perceiver_registry.describe`): the model's configuration, the names of its
            task and adapters, the distributions that these are of, and what its data are like. None: no model, which
            ``transformers`` needs for comparison.
        kwargs: as for ``transformers.PretrainedConfig``.
    """

    model_type = MODEL_TYPE

    def __init__(self, perceiver: Mapping[str, Any] | None = None, **kwargs: Any):
        # What may be tied is; whether weights are shared, the configuration of the decoder says.
        super().__init__(**{"tie_word_embeddings": True, **kwargs})
        self.perceiver = dict(perceiver or {})

    @classmethod
    def from_description(cls, description: Mapping[str, Any], **kwargs: Any) -> ZooConfig:
        """The configuration that a checkpoint's description stands for.

        Names are kept with their distributions, since other plugins may be installed where it is read. A tokenizer
        with a vocabulary is None; it has files of its own.

        Raises:
            UnknownNameError: if a plugin that it names is not installed.
        """
        kept = {name: value for name, value in description.items() if name not in LEFT_OUT}
        config = config_from_dict(description["model"])
        kept["task"] = registry().get("task", description["task"]).full_name
        kept["model"] = config_to_dict(config, full_names=True)
        kept["data"] = {name: None if _is_vocabulary(value) else value for name, value in description["data"].items()}
        labels = label_names(config)
        if labels is not None:
            names = dict(enumerate(labels))
            kwargs = {"id2label": names, "label2id": {name: number for number, name in names.items()}} | kwargs
        return cls(json.loads(json.dumps(kept)), **kwargs)  # so that it is now what it will be when it is read

    @property
    def task(self) -> str:
        """Name of the task that the model was trained for."""
        return self.perceiver["task"]

    def model_config(self) -> PerceiverConfig[Any, Any]:
        """The model's configuration.

        Raises:
            UserError: if there is none, or if it was written by a newer version of this project.
            PluginError: if it needs an adapter or a task that is not installed; the message says what to install.
        """
        source = self.name_or_path or "config.json"
        if not self.perceiver:
            raise UserError(f"{source}: describes no model of the zoo")
        if self.perceiver["format"] > FORMAT:
            raise UserError(
                f"{source}: written by a newer perceiver (format {self.perceiver['format']}); please upgrade"
            )
        for used in self.perceiver["plugins"]:
            if used["kind"] != "data":
                require(used, source)
        return config_from_dict(self.perceiver["model"])


def label_names(config: PerceiverConfig[Any, Any]) -> list[str] | None:
    """What a model's classes are called, their numbers where nobody said; None if it has no classes."""
    num_classes = getattr(config.decoder, "num_classes", None)
    if num_classes is None:
        return None
    return list(config.decoder.label_names or map(str, range(num_classes)))


def _is_vocabulary(value: Any) -> bool:
    return isinstance(value, Mapping) and "json" in value
