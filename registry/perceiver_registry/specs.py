"""What a plugin registers: names with a summary and the dotted places of what they stand for.

A place is written ``package.module:Name`` and resolved only when it is used, so that registering imports nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

AdapterKind = Literal["input", "output"]

ANY_TASK = "*"
"""Stands for all tasks."""


@dataclass(frozen=True)
class AdapterSpec:
    """An adapter and the config whose type selects it.

    Args:
        name: what configs and flags call it (``--model.encoder=NAME``).
        kind: "input" or "output".
        adapter: place of the subclass of ``perceiver_core.InputAdapter`` or ``OutputAdapter``.
        config: place of its subclass of ``perceiver_core.EncoderConfig`` or ``DecoderConfig``.
        summary: one line for listings.
        links: the config's fields that take the value of an attribute of the data module where they are not given
            (``{"vocab_size": "vocab_size"}``: field, attribute).
        tasks: output adapters: names of the tasks whose modules understand its output.
        reads: input adapters: the entries of a batch that it reads (``("pixel_values",)``).
        reader: input adapters: place of the subclass of ``perceiver_plugins.training.reading.Reader`` that reads a
            person's inputs for ``perceiver predict``, or None.
        data_options: input adapters: options of the data module that its weights depend on (``("tokenizer",)``).
            An encoder that is taken over from a checkpoint brings them along.
        convert_config: input adapters: place of a function that turns the id or folder of a published model into a
            ``PerceiverConfig``, or None.
        convert_params: input adapters: place of a function that turns the same into a state dict of the whole model,
            or None.
        example: values by dotted flag with which it makes a small model (``{"model.encoder.vocab_size": 40}``), for
            tests and trials.
    """

    name: str
    kind: AdapterKind
    adapter: str
    config: str
    summary: str
    links: Mapping[str, str] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    reader: str | None = None
    data_options: tuple[str, ...] = ()
    convert_config: str | None = None
    convert_params: str | None = None
    example: Mapping[str, Any] = field(default_factory=dict)

    @property
    def places(self) -> tuple[str, ...]:
        return (self.adapter, self.config)


@dataclass(frozen=True)
class DataSpec:
    """A data module: a LightningDataModule that yields dict batches with the Hugging Face names.

    Args:
        name: what configs and flags call it (``--data=NAME``).
        module: place of the LightningDataModule.
        tasks: names of the tasks that its batches serve; :data:`ANY_TASK` for all.
        summary: one line for listings.
        yields: the entries of its batches besides labels (``("pixel_values",)``); none: it is not known.
        defaults: default values by dotted flag that go with it (``{"trainer.max_steps": 1000}``).
    """

    name: str
    module: str
    tasks: tuple[str, ...]
    summary: str
    yields: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "data"

    def serves(self, task: str) -> bool:
        """Whether its batches serve the task of that name."""
        return task in self.tasks or ANY_TASK in self.tasks

    def feeds(self, adapter: AdapterSpec) -> bool:
        """Whether its batches have what an input adapter reads, as far as the two say."""
        return not self.yields or set(adapter.reads) <= set(self.yields)

    @property
    def places(self) -> tuple[str, ...]:
        return (self.module,)


@dataclass(frozen=True)
class TaskSpec:
    """What ``--task=NAME`` means.

    Args:
        name: what configs and flags call it.
        module: place of the LightningModule, a subclass of ``perceiver_plugins.training.LitPerceiver``.
        summary: one line for listings.
        data: name of the data module that is used where none is given.
        defaults: default values by dotted flag (``{"model.encoder": "text", "trainer.max_epochs": 1}``).
        reads: the entries of a batch that its module reads itself, so that the input adapter must, too.
        predictor: place of the class that serves ``perceiver predict``, a subclass of
            ``perceiver_plugins.training.prediction.Predictor``, or None.
    """

    name: str
    module: str
    summary: str
    data: str
    reads: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    predictor: str | None = None

    kind: ClassVar[str] = "task"

    @property
    def places(self) -> tuple[str, ...]:
        return (self.module,)


@dataclass(frozen=True)
class ModelSpec:
    """A named, complete configuration: one of the zoo's exhibits.

    Args:
        name: what flags call it (``--model=NAME``).
        task: name of the task that it is made for.
        config: values by dotted field of ``PerceiverConfig`` (``{"encoder": "text", "encoder.vocab_size": 262}``).
        num_parameters: its parameter count.
        summary: one line for listings.
        params: id of its published weights (``--model.params=ID`` starts from them), or None.
        defaults: default values by dotted flag that go with it (``{"data.max_seq_len": 2048}``).
    """

    name: str
    task: str
    config: Mapping[str, Any]
    num_parameters: int
    summary: str
    params: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "model"
    places: ClassVar[tuple[str, ...]] = ()


Spec = AdapterSpec | DataSpec | TaskSpec | ModelSpec
