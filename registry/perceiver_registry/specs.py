"""What a plugin registers: names with a summary and the dotted places of what they stand for.

A place is written ``package.module:Name`` and resolved only when it is used, so that registering imports nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

AdapterKind = Literal["input", "output"]


@dataclass(frozen=True)
class AdapterSpec:
    """An adapter and the config whose type selects it.

    Args:
        name: what configs and flags call it (``--model.encoder=NAME``).
        kind: "input" or "output".
        adapter: place of the subclass of ``perceiver_core.InputAdapter`` or ``OutputAdapter``.
        config: place of its subclass of ``perceiver_core.EncoderConfig`` or ``DecoderConfig``.
        summary: one line for listings.
    """

    name: str
    kind: AdapterKind
    adapter: str
    config: str
    summary: str

    @property
    def places(self) -> tuple[str, ...]:
        return (self.adapter, self.config)


@dataclass(frozen=True)
class DataSpec:
    """A data module: a LightningDataModule that yields dict batches with the Hugging Face names.

    Args:
        name: what configs and flags call it (``--data=NAME``).
        module: place of the LightningDataModule.
        tasks: names of the tasks that its batches serve.
        summary: one line for listings.
        defaults: default values by dotted flag that go with it (``{"trainer.max_steps": 1000}``).
    """

    name: str
    module: str
    tasks: tuple[str, ...]
    summary: str
    defaults: Mapping[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "data"

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
        links: from an attribute of the data module to the model's fields that take its value where they are not
            given (``{"vocab_size": ("encoder.vocab_size",)}``).
        predictor: place of the class that serves ``perceiver predict``, or None. It is created with the Lightning
            module, the checkpoint's description of its data, and whatever further arguments it has, which are flags.
            Its ``predict(inputs)`` returns plain data for each input, its ``rows(predictions)`` rows of a table.
        convert_config: place of a function that turns the id or folder of a published model into a
            ``PerceiverConfig``, or None.
    """

    name: str
    module: str
    summary: str
    data: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    predictor: str | None = None
    convert_config: str | None = None

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
