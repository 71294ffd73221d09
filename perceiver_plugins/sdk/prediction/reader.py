"""What a person gives to ``perceiver predict``, and how a model reads it: the side of a modality in prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from perceiver_core import Batch, InputAdapter
from perceiver_plugins.sdk.data.file_trees import FolderTree, select_files
from perceiver_plugins.sdk.data.missing_files import shorten_path
from perceiver_plugins.sdk.data.paths import as_path, is_folder, is_pattern, matching_files
from perceiver_registry import UserError


class Reader(ABC):
    """Reads the inputs of one modality, as a trained model expects them.

    An input adapter's spec names its reader, which serves every task: a task's predictor knows what to make of the
    model's output, and nothing of texts or images.

    Args:
        data: what the checkpoint says of the data it was trained on, the ``description()`` of its data module.
        input_adapter: the model's input adapter.

    Raises:
        UserError: if ``data`` lacks what is needed to read.
    """

    padding_side: Literal["left", "right"] = "right"
    """Where batches are padded, if they are."""

    long_inputs: bool = False
    """Whether an input may be a text of any length, of which the beginning or the end is read."""

    def __init__(self, data: Mapping[str, Any], input_adapter: InputAdapter) -> None:
        self.data = data
        self.input_adapter = input_adapter

    @classmethod
    def example(cls, input_adapter: InputAdapter, folder: Path) -> tuple[Reader, list[str]]:
        """A reader and small inputs that it can read, for the checks of ``perceiver_registry.testing``.

        Without it, the checks skip what needs a reader.

        Args:
            input_adapter: the model's input adapter.
            folder: an empty folder to write files of inputs into.

        Returns:
            A reader, and two or more inputs as :meth:`expand` takes them, of different lengths if inputs have a length.
        """
        raise NotImplementedError(f"{cls.__name__}.example")

    def expand(self, inputs: Sequence[str]) -> list[str]:
        """The single inputs that a person's arguments stand for, such as the files in a folder.

        Raises:
            UserError: if an argument names no input.
        """
        return list(inputs)

    def sources(self, inputs: Iterable[str]) -> Iterator[str]:
        """Expand inputs, one after the other where each is read by itself, so that any number takes no memory.

        Args:
            inputs: as of :meth:`expand`. If they are a sequence, all are expanded before the first is read.

        Raises:
            UserError: if an argument names no input.
        """
        return iter(self.expand(list(inputs)))

    @abstractmethod
    def read(self, source: str) -> Any:
        """One example, as :meth:`collate` takes it.

        Args:
            source: one of the inputs that :meth:`expand` returned.

        Raises:
            UserError: if it cannot be read; the others are predicted all the same.
        """

    @abstractmethod
    def collate(self, examples: Sequence[Any]) -> Batch:
        """A batch of examples, without labels."""

    def tokens(self, example: Any) -> list[str]:
        """What a person calls each of the m places of an example's input, where each gets an answer of its own."""
        return [str(place) for place in range(len(example))]

    def draw_attention(self, source: str, example: Any, weights: Sequence[Tensor], path: Path) -> Path:
        """Draws how much a model looked at each place of an input.

        Args:
            source: the input, as it was given.
            example: what :meth:`read` made of it.
            weights: (m) for each cross-attention layer of the encoder, each summing to 1.
            path: where to write, without a suffix.

        Returns:
            The file that was written.

        Raises:
            UserError: if there is no picture of this modality.
        """
        raise UserError(
            "--attention: not available for this kind of input (its reader does not override draw_attention)"
        )


def files_named(inputs: Sequence[str], suffixes: Sequence[str], noun: str) -> list[str]:
    """The files that inputs name: each file, all of a kind in a folder and below, all files that match a pattern.

    Args:
        inputs: files, folders and patterns.
        suffixes: what the names of files of the kind end in, in lower case. Hidden ones do not count; others in folders
            are counted and reported.
        noun: what such files are called, for messages: "images".

    Raises:
        UserError: if there is no such file in a folder, or if nothing matches a pattern.
    """
    found: list[str] = []
    for name in inputs:
        path = as_path(name)
        if not name:
            raise UserError(f"'': an empty name; give {noun}, folders of {noun} or patterns")
        if is_folder(name):
            files = select_files(FolderTree(path), suffixes, noun)
            if not files:
                raise UserError(f"{path}: there are no {noun} ({', '.join(suffixes)}) in the folder")
            found += [str(path / file) for file in files]
        elif is_pattern(name):
            matches = matching_files(name)
            if not matches:
                raise UserError(f"no file matches {shorten_path(name)!r}")
            found += map(str, matches)
        else:
            found.append(str(path))
    return list(dict.fromkeys(found))
