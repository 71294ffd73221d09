"""Formats of models on disk or on the hub: base class, detection, reading and writing.

All models and weights are read through this module. Torch is imported inside functions.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from perceiver_registry.checkpoint import Checkpoint
from perceiver_registry.description import ModelDescription
from perceiver_registry.errors import UserError
from perceiver_registry.registry import Entry, registry
from perceiver_registry.remote import refuse_remote
from perceiver_registry.specs import FormatSpec

if TYPE_CHECKING:
    from torch import Tensor

    from perceiver_core import Batch, Model

TOLERANCE = 1e-4
"""Tolerance between the outputs of a written model and the original, relative to the largest output. Arbitrary."""

NUM_COMPARED = 1024
"""Maximum number of output positions to compare, for models with very many, such as all pixels of a video."""


class _LoadedModel(NamedTuple):
    model: Model
    description: ModelDescription


class LoadedModel(_LoadedModel):
    """A model and its description.

    Args:
        model: the model, in evaluation mode.
        description: its description. A dict is deprecated.
    """

    __slots__ = ()

    def __new__(cls, model: Model, description: ModelDescription | Mapping[str, Any]) -> Self:
        return super().__new__(cls, model, typed_description(description))


class Format:
    """Base class of model formats on disk or on the hub.

    A readable format implements :meth:`recognises` and :meth:`read`, a writable one :meth:`write`. Its module has no
    slow imports at the top, since every format inspects every source.

    A command uses one object per source, so that the object may cache the content.
    """

    map_files: bool = True
    """Memory-map tensors. ``perceiver fit`` sets it to False, since it may replace the file during training."""

    def recognises(self, source: str) -> bool:
        """Return whether ``source`` is a model in this format.

        The check is cheap: the header of a file, or the ``config.json`` of a folder or hub id. It returns False if
        unsure. Formats with the suffix of the file are tried first.

        Raises:
            UserError: if ``source`` may be in this format but is missing or damaged, or the hub cannot be reached. The
                message is shown if no other format recognises the source.
        """
        return False

    def read(self, source: str) -> LoadedModel:
        """Read a model.

        Raises:
            UserError: if ``source`` is not a model in this format.
        """
        raise NotImplementedError(f"{type(self).__name__}.read")

    def description(self, source: str) -> ModelDescription:
        """Read the description of the model at ``source``, preferably without its weights.

        Raises:
            UserError: if ``source`` is not a model, or has no description.
        """
        return self.read(source).description

    def checkpoint(self, source: str) -> Checkpoint | None:
        """Read the checkpoint at ``source`` to resume training from, or return None in formats without training state.

        Raises:
            UserError: if the checkpoint is missing or damaged.
        """
        return None

    def signature(self, target: str) -> Mapping[str, Any]:
        """Return the signature of an exported model: ``"inputs"`` and ``"outputs"`` with name, type and shape of each,
        ``"sizes"`` and ``"checked"``. Empty in formats without signatures.
        """
        return {}

    def weights(self, source: str) -> Mapping[str, Tensor]:
        """Read the weights at ``source`` as a state dict of our model, preferably without building the model.

        Raises:
            UserError: if ``source`` is not a model in this format.
        """
        return self.read(source).model.state_dict()

    def refusal(self, loaded: LoadedModel) -> str | None:
        """Return the reason that a model cannot be written in this format, in one line, or None if it can."""
        return None

    def write(self, loaded: LoadedModel, target: str) -> None:
        """Write a model.

        Args:
            loaded: the model.
            target: the file or folder, which does not exist.

        Raises:
            UserError: if the model cannot be written in this format; the message gives the reason.
        """
        raise NotImplementedError(f"{type(self).__name__}.write")

    def compute(self, target: str, batch: Batch) -> Any:
        """Compute the outputs of a written model for a batch, in the structure that :meth:`expected` returns.

        Formats of other libraries run that library's code. This implementation reads the model back.
        """
        return self.expected(self.read(target).model, batch)

    def expected(self, model: Model, batch: Batch) -> Any:
        """Compute the outputs of a model that :meth:`compute` should return, at all positions or a subset."""
        return model(batch, _positions_to_compare(model))


class Source:
    """A file, a folder or a hub id of a model, opened in its format. Files are read once.

    Args:
        path: the file, folder or hub id.
        entry: the registered format.
        format: instance of the format.
    """

    def __init__(self, path: str, entry: Entry[FormatSpec], format: Format):
        self.path = path
        self.entry = entry
        self._format = format

    @functools.cached_property
    def description(self) -> ModelDescription:
        """Description of the model, read without its weights if the format supports that.

        Raises:
            UserError: if the source is not a model, or has no description.
        """
        return typed_description(self._format.description(self.path))

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Checkpoint to resume training from, or None in formats without training state.

        Raises:
            UserError: if it is damaged.
        """
        return self._format.checkpoint(self.path)

    def weights(self) -> Mapping[str, Tensor]:
        """Read the weights as a state dict of our model.

        Raises:
            UserError: if the source is not a model.
        """
        return self._format.weights(self.path)

    def read(self) -> LoadedModel:
        """Read the model.

        Raises:
            UserError: if the source is not a model.
        """
        return LoadedModel(*self._format.read(self.path))

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Explain user errors that are raised within this context: add the plugin versions that wrote the source."""
        try:
            yield
        except UserError as error:
            try:
                message = self.description.explain(str(error), self.path)
            except UserError:  # weights without a description
                raise error from None
            raise type(error)(message) from error


def typed_description(description: ModelDescription | Mapping[str, Any]) -> ModelDescription:
    """Convert a description to a typed one. Before interface 2.0, formats returned plain dicts, possibly incomplete."""
    if isinstance(description, ModelDescription):
        return description
    warnings.warn(
        "a dict as the description of a LoadedModel is deprecated since interface 2.0: use a ModelDescription",
        DeprecationWarning,
        stacklevel=3,
    )
    return ModelDescription.from_partial(description)


_shared_sources: ContextVar[dict[tuple[Any, ...], Source] | None] = ContextVar("_shared_sources", default=None)


@contextlib.contextmanager
def shared_sources() -> Iterator[None]:
    """Let :func:`open_source` return the same object for the same source within this context.

    Callers that need a model's description and its weights then share one opened file. The objects and their caches are
    released at the end.
    """
    token = _shared_sources.set({})
    try:
        yield
    finally:
        _shared_sources.reset(token)


def open_source(source: str, format: str | None = None, map_files: bool = True) -> Source:
    """Open a model's source in its format. Within :func:`shared_sources`, each source is opened once.

    Args:
        source: a file, a folder or a hub id.
        format: name of its format. None: detect it.
        map_files: memory-map tensors.

    Raises:
        UserError: if no format recognises the source, or if the format cannot be read.
    """
    shared, key = _shared_sources.get(), (source, format, map_files)
    if shared is not None and key in shared:
        return shared[key]
    opened = _open(source, format, map_files)
    if shared is not None:
        shared[key] = opened
    return opened


def _open(source: str, format: str | None, map_files: bool) -> Source:
    if format is not None:
        entry = registry().get("format", format)
        if not entry.spec.reads:
            raise UserError(f"format {format!r} cannot be read; readable formats: {_names('reads')}")
        return _opened(source, entry, map_files)
    refuse_remote("source", source)
    formats = _formats_to_try(source)
    reasons = []
    for entry in formats:
        try:
            opened = _opened(source, entry, map_files)
            if opened._format.recognises(source):
                return opened
        except UserError as error:
            reasons.append(str(error))
    if reasons:
        raise UserError("; ".join(dict.fromkeys(reasons)))
    known = ", ".join(sorted(map(registry().short_name, formats)))
    raise UserError(f"{source}: not a model in a readable format ({known or 'none'}){registry().not_loaded('')}")


def _opened(source: str, entry: Entry[FormatSpec], map_files: bool) -> Source:
    format = entry.resolve("format")()
    format.map_files = map_files
    return Source(source, entry, format)


def _formats_to_try(source: str) -> list[Entry[FormatSpec]]:
    """Return the formats to try for a source, those with its suffix first."""
    reading = [entry for entry in registry().entries("format") if entry.spec.reads]
    by_suffix = [entry for entry in reading if _has_suffix(source, entry)]
    if by_suffix and not Path(source).exists():
        return by_suffix  # a missing file
    return sorted(reading, key=lambda entry: entry not in by_suffix)


def read_model(source: str, format: str | None = None) -> LoadedModel:
    """Read a model in any format.

    Args:
        source: a file, a folder or a hub id.
        format: name of its format. None: detect it.

    Raises:
        UserError: if ``source`` is not a model, or no format recognises it.
        PluginError: if it needs a plugin that is not installed; the message gives the pip command.
    """
    return open_source(source, format).read()


def format_for(loaded: LoadedModel, target: str, format: str | None = None) -> Entry[FormatSpec]:
    """Choose the format to write a model in.

    Args:
        loaded: the model.
        target: a file or a folder.
        format: name of the format. None: by the suffix of a file or, for a folder, the first readable format that can
            store the model. Formats of the distribution of the model's input adapter come first.

    Raises:
        UserError: if no format can store the model.
    """
    if format is not None:
        entry = _named_format(format, target)
        return _checked(entry, loaded, folder=not entry.spec.suffixes)
    home = registry().adapter_of("input", loaded.model.config.encoder).plugin.distribution
    writing = [entry for entry in registry().entries("format") if entry.spec.writes]
    writing.sort(key=lambda entry: not entry.plugin.is_of(home))
    by_suffix = [entry for entry in writing if _has_suffix(target, entry)]
    if by_suffix:
        return _checked(by_suffix[0], loaded, folder=False)
    refusals = []
    for entry in writing:
        if entry.spec.suffixes or not entry.spec.reads:
            continue
        refusal = entry.resolve("format")().refusal(loaded)
        if refusal is None:
            return entry
        refusals.append(refusal)
    raise UserError(f"{target}: {'; '.join(refusals) or 'no format writes a folder'}")


def _named_format(format: str, target: str) -> Entry[FormatSpec]:
    """Return the format with a name, checked against the suffix of the target."""
    entry = registry().get("format", format)
    if not entry.spec.writes:
        raise UserError(f"format {format!r} cannot be written; writable formats: {_names('writes')}")
    if entry.spec.suffixes and not _has_suffix(target, entry):
        raise UserError(f"{target}: a file of format {format!r} ends with {' or '.join(entry.spec.suffixes)}")
    if not entry.spec.suffixes and any(_has_suffix(target, other) for other in registry().entries("format")):
        raise UserError(f"{target}: format {format!r} writes a folder, but the target has a file suffix")
    return entry


def _checked(entry: Entry[FormatSpec], loaded: LoadedModel, folder: bool) -> Entry[FormatSpec]:
    refusal = entry.resolve("format")().refusal(loaded)
    if refusal is not None:
        others = [
            registry().short_name(other)
            for other in registry().entries("format")
            if other.spec.reads and other.spec.writes and other != entry and folder == (not other.spec.suffixes)
            if other.resolve("format")().refusal(loaded) is None
        ]
        instead = f" (--format={' or --format='.join(others)} can store this model)" if others else ""
        raise UserError(f"{refusal}{instead}")
    return entry


def _has_suffix(path: str, entry: Entry[FormatSpec]) -> bool:
    return bool(entry.spec.suffixes) and path.endswith(entry.spec.suffixes)


def _names(ability: str) -> str:
    return ", ".join(
        registry().short_name(entry) for entry in registry().entries("format") if getattr(entry.spec, ability)
    )


def write_model(loaded: LoadedModel, target: str, format: str | None = None, *, overwrite: bool = False) -> float:
    """Write a model and verify that the written model computes the same outputs.

    The target is created only if they are equal up to :data:`TOLERANCE`.

    Args:
        loaded: the model.
        target: a file or a folder.
        format: name of the format. None: see :func:`format_for`.
        overwrite: replace existing files. Other files in the folder are kept.

    Returns:
        Maximum difference between the outputs of both models for random inputs, relative to the largest output.

    Raises:
        UserError: if the model cannot be written in this format, if ``target`` exists, or if the outputs of the
            written model differ.
    """
    import torch

    check_free(target, overwrite)
    written = format_for(loaded, target, format).resolve("format")()
    with _draft(Path(target)) as draft:
        written.write(loaded, str(draft))
        batch = example_batch(loaded.model)
        with torch.inference_mode():
            difference = largest_difference(written.expected(loaded.model, batch), written.compute(str(draft), batch))
        if not difference <= TOLERANCE:
            how = f"by {difference:.2g}" if difference < float("inf") else "other shapes or values that are not finite"
            raise UserError(f"{target}: removed the written model, whose outputs differ ({how})")
    return difference


def check_free(target: str, overwrite: bool = False) -> None:
    """Check that a target can be written without replacing files.

    Raises:
        UserError: if it is an existing file, a folder that is not empty, or a remote path.
    """
    refuse_remote("target", target)
    path = Path(target)
    if not overwrite and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{target}: already exists (--overwrite replaces it)")


@contextlib.contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """Yield a temporary path with the target's name, and move it to the target when the context exits without error."""
    folder = target.absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=folder))
        try:
            yield draft / target.name
            for path in sorted(draft.rglob("*")):
                final = folder / path.relative_to(draft)
                if path.is_dir():
                    final.mkdir(exist_ok=True)
                else:
                    os.replace(path, final)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error.strerror or error}") from error


def example_batch(model: Model) -> Batch:
    """Create a batch with one example of seeded random inputs."""
    import torch

    return model.input_adapter.example_batch(1, torch.Generator().manual_seed(0))


def _positions_to_compare(model: Model) -> Tensor | None:
    """Return indices (1, p) of at most :data:`NUM_COMPARED` output positions, or None for all."""
    import torch

    numbers: Any = getattr(model.output_adapter.query_provider, "num_positions", None)
    total = sum(numbers.values()) if isinstance(numbers, Mapping) else 0
    return torch.linspace(0, total - 1, NUM_COMPARED).long()[None] if total > NUM_COMPARED else None


def largest_difference(expected: Any, found: Any) -> float:
    """Return the maximum difference of two outputs, relative to the largest value of each expected tensor.

    Args:
        expected: tensors or arrays, or dicts and sequences of these.
        found: the output to compare. The result is infinite if its structure or shapes differ.
    """
    expected_tensors, found_tensors = list(_tensors(expected)), list(_tensors(found))
    if [each.shape for each in expected_tensors] != [each.shape for each in found_tensors]:
        return float("inf")
    differences = [
        float((x.double() - y.double()).abs().max() / x.double().abs().max().clamp(min=1e-12))
        for x, y in zip(expected_tensors, found_tensors, strict=True)
        if x.numel()
    ]
    return max((difference if difference == difference else float("inf") for difference in differences), default=0.0)


def _tensors(structure: Any) -> Iterator[Tensor]:
    """Yield the tensors in a structure; mappings are traversed in the order of their sorted keys."""
    import torch

    if isinstance(structure, Mapping):
        for name in sorted(structure):
            yield from _tensors(structure[name])
    elif isinstance(structure, list | tuple):
        for value in structure:
            yield from _tensors(value)
    elif structure is not None:
        yield torch.as_tensor(structure)
