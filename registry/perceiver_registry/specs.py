"""Specs: the records that plugins return from their hooks.

A spec has a name, a summary and import paths, written ``package.module:Name``. Import paths are resolved when they are
used, so that registering a plugin imports none of its modules.

Names in a spec (``data``, ``task``, and those in ``defaults`` and ``config``) refer to the spec's own distribution
first. ``tasks`` are the ``name`` fields of task specs.
"""

from __future__ import annotations

import re
import reprlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, get_args

AdapterKind = Literal["input", "output"]
Name = str
Reference = str
ImportPath = str
Version = str
Names = tuple[str, ...]

DEFAULT_ARCHITECTURE = "perceiver-zoo:perceiver-io"
"""Architecture of tasks, named models and plain configs that name none."""

ANY_TASK = "*"
"""Wildcard in ``DataSpec.tasks`` that matches every task."""


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w./+-]+", value) is not None


def _is_reference(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w./:+-]+", value) is not None


def _is_import_path(value: object) -> bool:
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
    return isinstance(value, tuple) and all(map(_is_string, value))


def _are_values(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_string, value))


def _are_mappings(value: object) -> bool:
    return _are_values(value) and all(map(_are_values, value.values()))  # type: ignore[attr-defined]


def _are_import_paths(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_string, value)) and all(map(_is_import_path, value.values()))


def _are_strings(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_string, (*value, *value.values())))


RULES: dict[str, tuple[Callable[[object], bool], str]] = {
    "Name": (_is_name, "a name of letters, digits and ._/+-"),
    "Reference": (_is_reference, "a name, or one written 'distribution:name'"),
    "AdapterKind": (_is_kind, "'input' or 'output'"),
    "ImportPath": (_is_import_path, "an import path such as 'package.module:Name'"),
    "Version": (_is_version, "a version such as '2.0'"),
    "str": (_is_string, "a string"),
    "int": (_is_count, "a whole number"),
    "bool": (_is_flag, "True or False"),
    "Names": (_are_names, "a tuple of names"),
    "Mapping[str, str]": (_are_strings, "a mapping of strings to strings"),
    "Mapping[str, ImportPath]": (
        _are_import_paths,
        "a mapping of strings to import paths such as 'package.module:Name'",
    ),
    "Mapping[str, Any]": (_are_values, "a mapping with strings as keys"),
    "Mapping[str, Mapping[str, Any]]": (_are_mappings, "a mapping of strings to mappings with strings as keys"),
}
"""Validation function and description of valid values, by the declared type of a field."""

ANYTHING = (lambda _: True, "")
"""Rule for fields of other types, which a subclass may add."""


class _Checked:
    """Base class of specs that checks the types of its fields, since plugins are written by third parties."""

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

    @property
    def places(self) -> Names:
        """Deprecated since interface 2.0: use ``import_paths``."""
        message = f"{type(self).__name__}.places is deprecated since interface 2.0: use import_paths"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return self.import_paths  # type: ignore[attr-defined]


@dataclass(frozen=True)
class AdapterSpec(_Checked):
    """An input or output adapter and the config type that selects it.

    Args:
        name: name in configs and flags (``--model.encoder=NAME``).
        kind: "input" or "output".
        adapter: import path of the subclass of ``perceiver_core.InputAdapter`` or ``OutputAdapter``.
        config: import path of the subclass of ``perceiver_core.EncoderConfig`` or ``DecoderConfig``.
        summary: one line for listings.
        links: attributes of the data module by the config fields that default to them
            (``{"vocab_size": "vocab_size"}``: field, attribute).
        tasks: output adapters: names of the tasks whose modules accept its output.
        reads: input adapters: batch entries that it reads (``("pixel_values",)``). Entries that may be missing may be
            left out.
        reader: input adapters: import path of the subclass of ``perceiver_plugins.sdk.prediction.Reader`` that reads
            the inputs of ``perceiver predict``, or None.
        data_options: input adapters: options of the data module that its weights depend on (``("tokenizer",)``).
            They are copied from the checkpoint when a model is initialised from a pretrained encoder.
        example: values by dotted flag of a small configuration (``{"model.encoder.vocab_size": 40}``), for tests.
        size_rule: input adapters: import path of a function that chooses defaults by the size of the data
            (:data:`~perceiver_registry.sizing.SizeRule`), or None.
        column_readers: input adapters: import paths of subclasses of ``perceiver_plugins.sdk.data.ColumnReader`` that
            read table columns for the adapter, by the kind of column that it embeds by default (``{"text":
            "my_plugin.column:TextColumn"}``). One adapter can be the default of a kind: "text" or "image".
        data: input adapters: name of the data module that replaces a task's default one if the adapter is chosen and
            cannot read that, or None.
    """

    name: Name
    kind: AdapterKind
    adapter: ImportPath
    config: ImportPath
    summary: str
    links: Mapping[str, str] = field(default_factory=dict)
    tasks: Names = ()
    reads: Names = ()
    reader: ImportPath | None = None
    data_options: Names = ()
    example: Mapping[str, Any] = field(default_factory=dict)
    size_rule: ImportPath | None = None
    column_readers: Mapping[str, ImportPath] = field(default_factory=dict)
    data: Reference | None = None

    @property
    def import_paths(self) -> Names:
        return (self.adapter, self.config)


@dataclass(frozen=True)
class ArchitectureSpec(_Checked):
    """An architecture and the config type that selects it.

    Args:
        name: name in configs and flags (``--model.architecture=NAME``).
        model: import path of the subclass of ``perceiver_core.Model``.
        config: import path of the subclass of ``perceiver_core.ModelConfig``.
        summary: one line for listings.
        example: values by dotted flag of a small configuration (``{"model.num_channels": 8}``), for tests. With
            ``model.encoder`` and ``model.decoder``, registered adapters replace the generic ones.
    """

    name: Name
    model: ImportPath
    config: ImportPath
    summary: str
    example: Mapping[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "architecture"

    @property
    def import_paths(self) -> Names:
        return (self.model, self.config)


@dataclass(frozen=True)
class DataSpec(_Checked):
    """A LightningDataModule whose batches are dicts with Hugging Face's names.

    Args:
        name: name in configs and flags (``--data=NAME``).
        module: import path of the LightningDataModule.
        tasks: names of the tasks that its batches fit; :data:`~perceiver_registry.specs.ANY_TASK` (``"*"``) for all.
        summary: one line for listings.
        yields: entries of its batches besides labels (``("pixel_values",)``). Empty: unknown.
        defaults: default values by dotted flag (``{"trainer.max_steps": 1000}``).
        modules: import paths of the LightningDataModules that replace ``module`` for some tasks, by task name
            (``{"text-classification": "my_plugin.data:LabelledTextDataModule"}``).
        example: arguments of the data module (``{"num_examples": 8}``) with which ``check_plugin`` loads a few small
            batches, without a trainer and without a download. None: its batches are not checked.
        task_defaults: default values for some tasks, which replace those in ``defaults``, by task name
            (``{"text-classification": {"data.tokenizer": "train:word"}}``).
        path_option: option for the user's training data, which ``--data=PATH`` sets (``"train_files"``). None: a path
            does not choose this data module.
        path_suffixes: suffixes of paths that choose this data module, before that of compression (``(".csv", "/")``;
            ``"/"``: a folder). Empty: any path.
    """

    name: Name
    module: ImportPath
    tasks: Names
    summary: str
    yields: Names = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    modules: Mapping[str, ImportPath] = field(default_factory=dict)
    example: Mapping[str, Any] | None = None
    task_defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    path_option: Name | None = None
    path_suffixes: Names = ()

    kind: ClassVar[str] = "data"

    def defaults_for(self, task: str) -> dict[str, Any]:
        """Return the default values for a task, by dotted flag."""
        return {**self.defaults, **self.task_defaults.get(task, {})}

    def serves(self, task: str) -> bool:
        """Return whether its batches fit the task of that name."""
        return task in self.tasks or ANY_TASK in self.tasks

    def feeds(self, adapter: AdapterSpec) -> bool:
        """Return whether its batches have the entries that an input adapter reads, or are unknown."""
        return not self.yields or set(adapter.reads) <= set(self.yields)

    @property
    def import_paths(self) -> Names:
        return tuple(dict.fromkeys((self.module, *self.modules.values())))


@dataclass(frozen=True)
class TaskSpec(_Checked):
    """A training task: a Lightning module with its default data module and options.

    Args:
        name: name in configs and flags (``--task=NAME``).
        module: import path of the LightningModule, a subclass of ``perceiver_plugins.sdk.tasks.LitPerceiver``.
        summary: one line for listings.
        data: name of the default data module. None: models of the task are not trained and have no metrics.
        reads: batch entries that the module reads itself, so that the input adapter has to read them as well.
        defaults: default values by dotted flag (``{"model.encoder": "text", "trainer.max_epochs": 1}``).
        predictor: import path of the class that ``perceiver predict`` uses, a subclass of
            ``perceiver_plugins.sdk.prediction.Predictor``, or None.
        published: name of the model with published weights that is the default for prediction, or None.
        architecture: name of the default architecture.
    """

    name: Name
    module: ImportPath
    summary: str
    data: Reference | None
    reads: Names = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    predictor: ImportPath | None = None
    published: Reference | None = None
    architecture: Reference = DEFAULT_ARCHITECTURE

    kind: ClassVar[str] = "task"

    @property
    def import_paths(self) -> Names:
        return (self.module,)


@dataclass(frozen=True)
class ModelSpec(_Checked):
    """A named model: a complete configuration, with or without published weights.

    Args:
        name: name in configs and flags (``--model=NAME``).
        task: name of its task.
        config: values by dotted field of the model's config (``{"encoder": "text", "encoder.vocab_size": 262}``).
            ``"architecture"`` names its architecture; without it, the config is a ``PerceiverConfig``.
        num_parameters: its parameter count.
        summary: one line for listings.
        params: hub id of its published weights (``--model.params=ID`` loads them), or None.
        defaults: default values by dotted flag (``{"data.max_seq_len": 2048}``).
    """

    name: Name
    task: Reference
    config: Mapping[str, Any]
    num_parameters: int
    summary: str
    params: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "model"
    import_paths: ClassVar[Names] = ()


@dataclass(frozen=True)
class FormatSpec(_Checked):
    """A file format of models, on disk or on the hub.

    Args:
        name: name in flags (``--format=NAME``).
        format: import path of the subclass of ``perceiver_registry.Format``, which is called without arguments.
        summary: one line for listings.
        reads: whether models can be read from it.
        writes: whether models can be written in it.
        suffixes: suffixes of its files, the default first (``(".onnx",)``). Empty: a model is a folder.
    """

    name: Name
    format: ImportPath
    summary: str
    reads: bool = False
    writes: bool = False
    suffixes: Names = ()

    kind: ClassVar[str] = "format"

    @property
    def import_paths(self) -> Names:
        return (self.format,)


@dataclass(frozen=True)
class MigrationSpec(_Checked):
    """A migration of models that were written by older versions of the distribution.

    Args:
        name: name in messages.
        before: first version of the distribution whose models need no migration (``"2.0"``).
        migration: import path of the subclass of ``perceiver_registry.Migration``, which is called without arguments.
        summary: one line for listings.
    """

    name: Name
    before: Version
    migration: ImportPath
    summary: str

    kind: ClassVar[str] = "migration"

    @property
    def import_paths(self) -> Names:
        return (self.migration,)


Spec = AdapterSpec | ArchitectureSpec | DataSpec | TaskSpec | ModelSpec | FormatSpec | MigrationSpec
