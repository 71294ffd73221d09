"""What a plugin registers: names with a summary and the dotted places of what they stand for.

A place is written ``package.module:Name`` and resolved only when it is used, so that registering imports nothing.

Names in a spec (``data``, ``task``, and those in ``defaults`` and ``config``) mean what the spec's own distribution
registers under them, if it does. ``tasks`` are names as their specs say them.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, get_args

AdapterKind = Literal["input", "output"]
Name = str
Reference = str
Place = str
Version = str
Names = tuple[str, ...]

ANY_TASK = "*"
"""Stands for all tasks."""


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w./+-]+", value) is not None


def _is_reference(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w./:+-]+", value) is not None


def _is_place(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w.]+:[\w.]+", value) is not None


def _is_version(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)*((a|b|rc)\d+)?", value) is not None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_kind(value: object) -> bool:
    return isinstance(value, str) and value in get_args(AdapterKind)


def _are_names(value: object) -> bool:
    return isinstance(value, tuple) and all(map(_is_text, value))


def _are_values(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value))


def _are_places(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value)) and all(map(_is_place, value.values()))


def _are_texts(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, (*value, *value.values())))


RULES: dict[str, tuple[Callable[[object], bool], str]] = {
    "Name": (_is_name, "a name of letters, digits and ._/+-"),
    "Reference": (_is_reference, "a name, or one written 'distribution:name'"),
    "AdapterKind": (_is_kind, "'input' or 'output'"),
    "Place": (_is_place, "a place written 'package.module:Name'"),
    "Version": (_is_version, "a version such as '2.0'"),
    "str": (_is_text, "a text"),
    "int": (_is_count, "a whole number"),
    "bool": (_is_flag, "True or False"),
    "Names": (_are_names, "a tuple of names"),
    "Mapping[str, str]": (_are_texts, "a mapping of texts to texts"),
    "Mapping[str, Place]": (_are_places, "a mapping of texts to places written 'package.module:Name'"),
    "Mapping[str, Any]": (_are_values, "a mapping with texts as its keys"),
}
"""What a field of a declared type must be, and how a person says it."""

ANYTHING = (lambda _: True, "")
"""The rule of fields that a subclass adds."""


class _Checked:
    """Refuses values that are not of the type that their fields declare: strangers write specs."""

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            declared, _, optional = str(each.type).partition(" | ")
            is_right, expected = RULES.get(declared, ANYTHING)
            if not is_right(value) and not (optional and value is None):
                name = f" {reprlib.repr(self.name)}" if each.name != "name" else ""  # type: ignore[attr-defined]
                raise ValueError(
                    f"{type(self).__name__}{name}: {each.name} is {reprlib.repr(value)}, must be {expected}"
                )


@dataclass(frozen=True)
class AdapterSpec(_Checked):
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
        reader: input adapters: place of the subclass of ``perceiver_plugins.sdk.prediction.reader.Reader`` that reads a
            person's inputs for ``perceiver predict``, or None.
        data_options: input adapters: options of the data module that its weights depend on (``("tokenizer",)``).
            An encoder that is taken over from a checkpoint brings them along.
        example: values by dotted flag with which it makes a small model (``{"model.encoder.vocab_size": 40}``), for
            tests and trials.
    """

    name: Name
    kind: AdapterKind
    adapter: Place
    config: Place
    summary: str
    links: Mapping[str, str] = field(default_factory=dict)
    tasks: Names = ()
    reads: Names = ()
    reader: Place | None = None
    data_options: Names = ()
    example: Mapping[str, Any] = field(default_factory=dict)

    @property
    def places(self) -> Names:
        return (self.adapter, self.config)


@dataclass(frozen=True)
class DataSpec(_Checked):
    """A data module: a LightningDataModule that yields dict batches with the Hugging Face names.

    Args:
        name: what configs and flags call it (``--data=NAME``).
        module: place of the LightningDataModule.
        tasks: names of the tasks that its batches serve; :data:`~perceiver_registry.specs.ANY_TASK` (``"*"``) for all.
        summary: one line for listings.
        yields: the entries of its batches besides labels (``("pixel_values",)``); none: it is not known.
        defaults: default values by dotted flag that go with it (``{"trainer.max_steps": 1000}``).
        modules: places of other LightningDataModules, by the names of the tasks that need these instead of ``module``
            (``{"text-classification": "my_plugin.data:LabelledTextDataModule"}``).
        example: arguments of the data module (``{"num_examples": 8}``) with which ``check_plugin`` loads a few small
            batches, without a trainer and without a download. None: its batches are not checked.
    """

    name: Name
    module: Place
    tasks: Names
    summary: str
    yields: Names = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    modules: Mapping[str, Place] = field(default_factory=dict)
    example: Mapping[str, Any] | None = None

    kind: ClassVar[str] = "data"

    def serves(self, task: str) -> bool:
        """Whether its batches serve the task of that name."""
        return task in self.tasks or ANY_TASK in self.tasks

    def feeds(self, adapter: AdapterSpec) -> bool:
        """Whether its batches have what an input adapter reads, as far as the two say."""
        return not self.yields or set(adapter.reads) <= set(self.yields)

    @property
    def places(self) -> Names:
        return tuple(dict.fromkeys((self.module, *self.modules.values())))


@dataclass(frozen=True)
class TaskSpec(_Checked):
    """What ``--task=NAME`` means.

    Args:
        name: what configs and flags call it.
        module: place of the LightningModule, a subclass of ``perceiver_plugins.sdk.tasks.lightning.LitPerceiver``.
        summary: one line for listings.
        data: name of the data module that is used where none is given.
        defaults: default values by dotted flag (``{"model.encoder": "text", "trainer.max_epochs": 1}``).
        reads: the entries of a batch that its module reads itself, so that the input adapter must, too.
        predictor: place of the class that serves ``perceiver predict``, a subclass of
            ``perceiver_plugins.sdk.prediction.predictor.Predictor``, or None.
        published: name of the model with published weights that predicts where no other is given, or None.
    """

    name: Name
    module: Place
    summary: str
    data: Reference
    reads: Names = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    predictor: Place | None = None
    published: Reference | None = None

    kind: ClassVar[str] = "task"

    @property
    def places(self) -> Names:
        return (self.module,)


@dataclass(frozen=True)
class ModelSpec(_Checked):
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

    name: Name
    task: Reference
    config: Mapping[str, Any]
    num_parameters: int
    summary: str
    params: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "model"
    places: ClassVar[Names] = ()


@dataclass(frozen=True)
class FormatSpec(_Checked):
    """A way in which a model lies on disk, or at the hub.

    Args:
        name: what flags call it (``--format=NAME``).
        format: place of the subclass of ``perceiver_registry.Format``, which is called without arguments.
        summary: one line for listings.
        reads: whether models are read from it.
        writes: whether models are written in it.
        suffixes: of its files, the usual one first (``(".onnx",)``); none: it is a folder.
    """

    name: Name
    format: Place
    summary: str
    reads: bool = False
    writes: bool = False
    suffixes: Names = ()

    kind: ClassVar[str] = "format"

    @property
    def places(self) -> Names:
        return (self.format,)


@dataclass(frozen=True)
class MigrationSpec(_Checked):
    """A migration of models that older versions of the distribution wrote.

    Args:
        name: name in messages.
        before: first version of the distribution whose models need no migration (``"2.0"``).
        migration: import path of the subclass of ``perceiver_registry.Migration``, which is called without arguments.
        summary: one line for listings.
    """

    name: Name
    before: Version
    migration: Place
    summary: str

    kind: ClassVar[str] = "migration"

    @property
    def places(self) -> Names:
        return (self.migration,)


Spec = AdapterSpec | DataSpec | TaskSpec | ModelSpec | FormatSpec | MigrationSpec
