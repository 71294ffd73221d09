"""Formats: the ways in which a model lies on disk or at the hub, and how one gets from there to here and back.

Every source of a model or of its weights goes through here. Imports torch when it is called.
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

    from perceiver_core import Batch, PerceiverIO

TOLERANCE = 1e-4
"""How far the outputs of what was written may lie from the model's, relative to the largest of these."""


NUM_COMPARED = 1024
"""How many output places are compared of a model that has very many, such as one for each pixel of a video."""


class _LoadedModel(NamedTuple):
    model: PerceiverIO
    description: ModelDescription


class LoadedModel(_LoadedModel):
    """A model and its description.

    Args:
        model: the model, in evaluation mode.
        description: its task, its plain configuration, what prediction needs to know about the data (its tokenizer,
            how images are normalised), and more. A dict of these is deprecated.
    """

    __slots__ = ()

    def __new__(cls, model: PerceiverIO, description: ModelDescription | Mapping[str, Any]) -> Self:
        return super().__new__(cls, model, typed_description(description))


class Format:
    """A way in which a model lies on disk or at the hub.

    A subclass that reads implements :meth:`recognises` and :meth:`read`, one that writes implements :meth:`write`. Its
    module imports nothing heavy at the top: every format is asked for every source.

    A command asks one object for all that it needs of a source, so that an object may keep what it has read.
    """

    map_files: bool = True
    """Whether tensors may stay in the file until they are used. ``perceiver fit`` sets it to False, since it may
    replace the file while it trains.
    """

    def recognises(self, source: str) -> bool:
        """Whether ``source`` looks like a model in this format.

        A cheap look at a file's head, a folder's ``config.json`` or that of a hub id; False where it cannot tell. The
        formats of a file's suffix are asked first.

        Raises:
            UserError: if ``source`` could be in this format, but cannot be looked at: it is missing or damaged, or the
                hub is out of reach. The message is shown if no other format recognises it.
        """
        return False

    def read(self, source: str) -> LoadedModel:
        """Reads a model.

        Raises:
            UserError: if there is none at ``source`` in this format.
        """
        raise NotImplementedError(f"{type(self).__name__}.read")

    def description(self, source: str) -> ModelDescription:
        """The description of the model at ``source``. A format that can, reads it without the weights.

        Raises:
            UserError: if there is no model, or if the source does not say what it is.
        """
        return self.read(source).description

    def checkpoint(self, source: str) -> Checkpoint | None:
        """The checkpoint of a run at ``source``, from which training is resumed; None in any other format.

        Raises:
            UserError: if there is no checkpoint at ``source``, or if it is damaged.
        """
        return None

    def signature(self, target: str) -> Mapping[str, Any]:
        """What a file for serving says of itself: ``"inputs"`` and ``"outputs"`` with name, type and shape of each,
        ``"sizes"`` and ``"checked"``. Empty in formats that are not for serving.
        """
        return {}

    def weights(self, source: str) -> Mapping[str, Tensor]:
        """The weights at ``source`` under the names of a model here. A format that can, builds no model for them.

        Raises:
            UserError: if there is no model at ``source`` in this format.
        """
        return self.read(source).model.state_dict()

    def refusal(self, loaded: LoadedModel) -> str | None:
        """Why a model cannot be written in this format, in one line; None if it can."""
        return None

    def write(self, loaded: LoadedModel, target: str) -> None:
        """Writes a model.

        Args:
            loaded: the model.
            target: the file or folder, which is not there yet.

        Raises:
            UserError: if it cannot be written in this format; the message says why.
        """
        raise NotImplementedError(f"{type(self).__name__}.write")

    def compute(self, target: str, batch: Batch) -> Any:
        """What that which was written computes for a batch, in the structure that :meth:`expected` returns.

        A format of another library computes with that library's own code. Here, the model is read back.
        """
        return self.expected(self.read(target).model, batch)

    def expected(self, model: PerceiverIO, batch: Batch) -> Any:
        """What a model computes for a batch, to compare :meth:`compute` with: its output, or some of its places."""
        return model(batch, _some_places(model))


class Source:
    """A file, a folder or a hub id of a model, opened in its format. A file is read once for all that is asked.

    Args:
        path: the file, folder or hub id.
        entry: its registered format.
        format: an object of that format.
    """

    def __init__(self, path: str, entry: Entry[FormatSpec], format: Format):
        self.path = path
        self.entry = entry
        self._format = format

    @functools.cached_property
    def description(self) -> ModelDescription:
        """The description of the model, read without its weights where the format can.

        Raises:
            UserError: if there is no model, or if the source does not say what it is.
        """
        return typed_description(self._format.description(self.path))

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint of a run, or None if the source is in any other format.

        Raises:
            UserError: if it is damaged.
        """
        return self._format.checkpoint(self.path)

    def weights(self) -> Mapping[str, Tensor]:
        """The weights under the names of a model here.

        Raises:
            UserError: if there is no model.
        """
        return self._format.weights(self.path)

    def read(self) -> LoadedModel:
        """Read the model.

        Raises:
            UserError: if there is no model.
        """
        return LoadedModel(*self._format.read(self.path))

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Explain user errors that are raised within this context: name the plugin versions that wrote the source."""
        try:
            yield
        except UserError as error:
            try:
                message = self.description.explain(str(error), self.path)
            except UserError:  # weights without a description
                raise error from None
            raise type(error)(message) from error


def typed_description(description: ModelDescription | Mapping[str, Any]) -> ModelDescription:
    """Return a description as a typed one: before interface 2.0 formats had plain dicts, which may be incomplete."""
    if isinstance(description, ModelDescription):
        return description
    warnings.warn(
        "a dict as the description of a LoadedModel is deprecated since interface 2.0: make it a ModelDescription",
        DeprecationWarning,
        stacklevel=3,
    )
    return ModelDescription.from_partial(description)


_shared_sources: ContextVar[dict[tuple[Any, ...], Source] | None] = ContextVar("_shared_sources", default=None)


@contextlib.contextmanager
def shared_sources() -> Iterator[None]:
    """Let :func:`open_source` return the same object for the same source within this context.

    A model's description and its weights, which different callers need, are then read from one opened file. The objects
    and what they have read are released at the end.
    """
    token = _shared_sources.set({})
    try:
        yield
    finally:
        _shared_sources.reset(token)


def open_source(source: str, format: str | None = None, map_files: bool = True) -> Source:
    """Open a model's source in its format; once within :func:`shared_sources`.

    Args:
        source: a file, a folder or a hub id.
        format: name of its format. None: the one that recognises it.
        map_files: whether tensors may stay in the file until they are used.

    Raises:
        UserError: if no format recognises the source, or if the format is only written.
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
            raise UserError(f"format {format!r} is only written; formats that are read: {_names('reads')}")
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
    raise UserError(f"{source}: no model in any format that is read ({known or 'none'}){registry().not_loaded('')}")


def _opened(source: str, entry: Entry[FormatSpec], map_files: bool) -> Source:
    format = entry.resolve("format")()
    format.map_files = map_files
    return Source(source, entry, format)


def _formats_to_try(source: str) -> list[Entry[FormatSpec]]:
    """The formats that a source may be in, those of its suffix first."""
    reading = [entry for entry in registry().entries("format") if entry.spec.reads]
    by_suffix = [entry for entry in reading if _has_suffix(source, entry)]
    if by_suffix and not Path(source).exists():
        return by_suffix  # what is missing is a file
    return sorted(reading, key=lambda entry: entry not in by_suffix)


def read_model(source: str, format: str | None = None) -> LoadedModel:
    """Reads a model in any format.

    Args:
        source: a file, a folder or a hub id.
        format: name of its format. None: the one that recognises it.

    Raises:
        UserError: if there is no model at ``source``, or if no format recognises it.
        PluginError: if it needs something that is not installed; the message says what to install.
    """
    return open_source(source, format).read()


def format_for(loaded: LoadedModel, target: str, format: str | None = None) -> Entry[FormatSpec]:
    """The format that a model is to be written in.

    Args:
        loaded: the model.
        target: a file, whose suffix decides, or a folder.
        format: the format's name. None: that of the suffix or, for a folder, the first that can hold the model and is
            read as well. Formats of the distribution that the model's input adapter is of come first.

    Raises:
        UserError: if there is none.
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
    raise UserError(f"{target}: {'; '.join(refusals) or 'no format is written as a folder'}")


def _named_format(format: str, target: str) -> Entry[FormatSpec]:
    """The format of that name, which can be written to a target of that name."""
    entry = registry().get("format", format)
    if not entry.spec.writes:
        raise UserError(f"format {format!r} is only read; formats that are written: {_names('writes')}")
    if entry.spec.suffixes and not _has_suffix(target, entry):
        raise UserError(f"{target}: a file of format {format!r} ends with {' or '.join(entry.spec.suffixes)}")
    if not entry.spec.suffixes and any(_has_suffix(target, other) for other in registry().entries("format")):
        raise UserError(f"{target}: format {format!r} makes a folder; this is the name of a file")
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
        instead = f" (--format={' or --format='.join(others)} holds this model)" if others else ""
        raise UserError(f"{refusal}{instead}")
    return entry


def _has_suffix(path: str, entry: Entry[FormatSpec]) -> bool:
    return bool(entry.spec.suffixes) and path.endswith(entry.spec.suffixes)


def _names(ability: str) -> str:
    return ", ".join(
        registry().short_name(entry) for entry in registry().entries("format") if getattr(entry.spec, ability)
    )


def write_model(loaded: LoadedModel, target: str, format: str | None = None, *, overwrite: bool = False) -> float:
    """Writes a model, and runs what was written beside it.

    Nothing is at ``target`` before all of it is written and has proved equal.

    Args:
        loaded: the model.
        target: a file or a folder.
        format: name of the format. None: see :func:`format_for`.
        overwrite: replace files that are there already. Others in the folder stay.

    Returns:
        The largest difference between the outputs of the two for random inputs, relative to the largest output.

    Raises:
        UserError: if the model cannot be written in this format, if there is something at ``target``, or if what was
            written computes something else.
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
            how = f"outputs differ by {difference:.2g}" if difference < float("inf") else "other shapes, or not finite"
            raise UserError(f"{target}: what was written computes something else ({how}), so that it is removed")
    return difference


def check_free(target: str, overwrite: bool = False) -> None:
    """Checks that nothing is lost if ``target`` is written.

    Raises:
        UserError: if there is a file, or a folder that is not empty, or if the target is a remote path.
    """
    refuse_remote("target", target)
    path = Path(target)
    if not overwrite and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{target}: there is something already; --overwrite replaces it")


@contextlib.contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A place of the target's name to write to, from where all goes to the target once the context is left well."""
    folder = target.absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=folder))
        try:
            yield draft / target.name
            for path in sorted(draft.rglob("*")):
                place = folder / path.relative_to(draft)
                if path.is_dir():
                    place.mkdir(exist_ok=True)
                else:
                    os.replace(path, place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error.strerror or error}") from error


def example_batch(model: PerceiverIO) -> Batch:
    """Random inputs for a model, the same each time: one example."""
    import torch

    return model.input_adapter.example_batch(1, torch.Generator().manual_seed(0))


def _some_places(model: PerceiverIO) -> Tensor | None:
    """Numbers (1, p) of output places, where a model says that it has very many; None stands for all."""
    import torch

    numbers: Any = getattr(model.output_adapter.query_provider, "num_positions", None)
    total = sum(numbers.values()) if isinstance(numbers, Mapping) else 0
    return torch.linspace(0, total - 1, NUM_COMPARED).long()[None] if total > NUM_COMPARED else None


def largest_difference(expected: Any, found: Any) -> float:
    """How far two outputs lie apart at most, relative to the largest value of each expected tensor.

    Args:
        expected: tensors or arrays, or dicts and sequences of these.
        found: the same for what is compared. Infinity is returned if it is not of the same structure and shapes.
    """
    ours, theirs = list(_tensors(expected)), list(_tensors(found))
    if [each.shape for each in ours] != [each.shape for each in theirs]:
        return float("inf")
    differences = [
        float((one.double() - other.double()).abs().max() / one.double().abs().max().clamp(min=1e-12))
        for one, other in zip(ours, theirs, strict=True)
        if one.numel()
    ]
    return max((difference if difference == difference else float("inf") for difference in differences), default=0.0)


def _tensors(structure: Any) -> Iterator[Tensor]:
    """The tensors in a structure, those of mappings in the order of their names."""
    import torch

    if isinstance(structure, Mapping):
        for name in sorted(structure):
            yield from _tensors(structure[name])
    elif isinstance(structure, list | tuple):
        for value in structure:
            yield from _tensors(value)
    elif structure is not None:
        yield torch.as_tensor(structure)
