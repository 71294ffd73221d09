"""Base class of readers: they convert the inputs of ``perceiver predict`` to batches of a modality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from torch import Tensor

from perceiver_core import Batch, InputAdapter
from perceiver_plugins.sdk.data.file_trees import FolderTree, select_files
from perceiver_plugins.sdk.data.missing_files import shorten_path
from perceiver_plugins.sdk.data.paths import as_path, is_folder, is_pattern, matching_files
from perceiver_registry import UserError


class InMemory(str):
    """Source of an input in memory: its displayed name, with the object as an attribute. It is not expanded.

    Args:
        name: name for messages and predictions.
        value: the object.
    """

    value: Any

    def __new__(cls, name: str, value: Any) -> Self:
        source = super().__new__(cls, name)
        source.value = value
        return source


class Reader(ABC):
    """Base class of readers of a modality, with the preprocessing of training.

    The spec of an input adapter names its reader, which works with all tasks: predictors handle the model's output and
    are independent of the modality.

    Args:
        data: the ``description()`` of the data module, from the checkpoint.
        input_adapter: the model's input adapter.

    Raises:
        UserError: if ``data`` lacks an entry that the reader needs.
    """

    padding_side: Literal["left", "right"] = "right"
    """Side of padding."""

    long_inputs: bool = False
    """True if inputs may be texts of any length, which are truncated."""

    def __init__(self, data: Mapping[str, Any], input_adapter: InputAdapter) -> None:
        self.data = data
        self.input_adapter = input_adapter

    @classmethod
    def example(cls, input_adapter: InputAdapter, folder: Path) -> tuple[Reader, list[str]]:
        """Create a reader and small inputs for the checks of ``perceiver_registry.testing``.

        Checks that need a reader are skipped if this method is not implemented.

        Args:
            input_adapter: the model's input adapter.
            folder: an empty folder to write input files to.

        Returns:
            A reader, and two or more inputs for :meth:`expand`, of different lengths if lengths may differ.
        """
        raise NotImplementedError(f"{cls.__name__}.example")

    def expand(self, inputs: Sequence[str]) -> list[str]:
        """Expand arguments to single inputs, such as a folder to its files.

        Raises:
            UserError: if an argument names no input.
        """
        return list(inputs)

    def sources(self, inputs: Iterable[str]) -> Iterator[str]:
        """Expand arguments to single inputs lazily, to save memory.

        Args:
            inputs: arguments, as in :meth:`expand`. All arguments of a sequence are checked before the first is read.

        Raises:
            UserError: if an argument names no input.
        """
        return iter(self.expand(list(inputs)))

    def source_of(self, value: Any, name: str) -> InMemory:
        """Convert an object in memory, such as an image, to a source, which is read like a file with its content.

        Args:
            value: the object.
            name: name of the input in messages and predictions.

        Raises:
            UserError: if the reader does not read such objects; by default, for all objects.
        """
        raise not_in_memory(name, value)

    @abstractmethod
    def read(self, source: str) -> Any:
        """Read an input as an example for :meth:`collate`.

        Args:
            source: one of the inputs that :meth:`expand` or :meth:`source_of` returned.

        Raises:
            UserError: if it cannot be read. It is reported, and the other inputs are predicted.
        """

    def finish(self) -> None:  # noqa: B027
        """Report what concerns all inputs, such as unknown categories, after the last one. By default nothing."""

    @abstractmethod
    def collate(self, examples: Sequence[Any]) -> Batch:
        """Collate examples to a batch, without labels.

        If this fails, :class:`~perceiver_plugins.sdk.prediction.Predictor` collates examples of equal shapes.
        """

    def tokens(self, example: Any) -> list[str]:
        """Name each of the m input positions of an example, for tasks that predict something for each."""
        return [str(position) for position in range(len(example))]

    def draw_attention(self, source: str, example: Any, weights: Sequence[Tensor], path: Path) -> Path:
        """Draw the attention maps of an input.

        Args:
            source: the input.
            example: result of :meth:`read` for it.
            weights: (m) for each cross-attention layer of the encoder, each summing to 1.
            path: path of the picture without suffix.

        Returns:
            Path of the file.

        Raises:
            UserError: if the modality has no visualisation.
        """
        raise UserError(
            "--attention: not available for this kind of input (its reader does not override draw_attention)"
        )


def not_in_memory(name: str, value: Any, *kinds: str) -> UserError:
    """Return the error for an object in memory that a reader does not read.

    Args:
        name: name of the input.
        value: the object.
        kinds: objects that the reader reads: "an image".
    """
    return UserError(f"{name}: must be {' or '.join(['a text or path', *kinds])}, got {type(value).__name__}")


def files_named(inputs: Sequence[str], suffixes: Sequence[str], noun: str) -> list[str]:
    """Expand files, folders (recursively) and patterns to files.

    Args:
        inputs: files, folders and patterns.
        suffixes: suffixes of the files in folders, in lower case. Hidden files are ignored; other files are counted and
            reported.
        noun: plural noun for the files in messages, such as "images".

    Raises:
        UserError: if a folder has no such file, or if a pattern has no match.
    """
    found: list[str] = []
    for name in inputs:
        path = as_path(name)
        if not name:
            raise UserError(f"'': an empty name (give {noun}, folders of {noun} or patterns)")
        if is_folder(name):
            files = select_files(FolderTree(path), suffixes, noun)
            if not files:
                raise UserError(f"{path}: no {noun} ({', '.join(suffixes)}) in the folder")
            found += [str(path / file) for file in files]
        elif is_pattern(name):
            matches = matching_files(name)
            if not matches:
                raise UserError(f"no file matches {shorten_path(name)!r}")
            found += map(str, matches)
        else:
            found.append(str(path))
    return list(dict.fromkeys(found))
