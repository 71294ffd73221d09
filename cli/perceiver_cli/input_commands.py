"""Differences between ``predict`` and ``embed``, which apply a trained model to inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from perceiver_cli.embedding import check_embedding_flags, embedding_run, opened_embeddings
from perceiver_cli.predictions import BINARY_FORMATS, TEXT_FORMATS, Opener, Output
from perceiver_cli.values import Values
from perceiver_cli.vectors import VECTOR_FORMATS
from perceiver_registry.embeddings import embedding_predictor

Prepared = tuple[Output, Iterator[Any] | None]
"""The output, and results that replace those for the inputs, or None."""


def _task_predictor(task: Any) -> Any:
    return task.resolve("predictor") if task is not None and task.spec.predictor else None


def _prepare_nothing(predictor: Any, output: Output, values: Values) -> contextlib.AbstractContextManager[Prepared]:
    return contextlib.nullcontext((output, None))


@dataclass(frozen=True)
class InputCommand:
    """A subcommand that applies a trained model to inputs.

    Attributes:
        action: verb in notes.
        results: noun of the results in notes.
        output_help: help of ``--output``.
        binary_formats: openers of the formats that need a file, by suffix.
        description: first sentences of the help, before those of all commands.
        flags: further flags, with their help.
        find_predictor: function that returns the predictor class for a registered task or None; None if there is no
            predictor.
        check_flags: function that raises a UserError if the output and the values of flags exclude each other.
        prepare: context manager of a run, called with the predictor, the output and the values of the flags.
    """

    action: str
    results: str
    output_help: str
    binary_formats: Mapping[str, Opener]
    description: str = ""
    flags: Mapping[str, str] = field(default_factory=dict)
    find_predictor: Callable[[Any], Any] = _task_predictor
    check_flags: Callable[[Output, Values], None] = lambda output, values: None
    prepare: Callable[[Any, Output, Values], contextlib.AbstractContextManager[Prepared]] = _prepare_nothing

    @property
    def formats(self) -> tuple[str, ...]:
        """Names of all output formats."""
        return ("table", *TEXT_FORMATS, *self.binary_formats)


COMMANDS_BY_NAME = {
    "predict": InputCommand(
        action="predicting",
        results="predictions",
        output_help="file for predictions (.csv, .json, .jsonl, .parquet); folder for the images of tasks that draw "
        "them, such as optical flow; file (.mid, .wav, .png) or folder for music; default: print predictions",
        binary_formats=BINARY_FORMATS,
    ),
    "embed": InputCommand(
        action="embedding",
        results="embeddings",
        output_help="file for embeddings (.parquet, .npy, .csv, .json, .jsonl); default: print the first numbers of "
        "each",
        binary_formats=dict.fromkeys(VECTOR_FORMATS, opened_embeddings),
        description="Compute a vector for each input: the mean of the model's latents. Models and inputs are those of "
        "predict. --output=vectors.parquet has the columns input and embedding; vectors.npy has an array (inputs, "
        "channels), and vectors.ids.jsonl its inputs; vectors.csv has a column for each number. --similar_to=INPUT "
        "prints the inputs with the most similar vectors (cosine). The same command resumes an interrupted run with "
        "--output.",
        flags={
            "vectors": "file of embeddings of the same model (.parquet) to search with --similar_to, instead of inputs"
        },
        find_predictor=lambda task: embedding_predictor(),
        check_flags=check_embedding_flags,
        prepare=embedding_run,
    ),
}
"""Properties of :data:`~perceiver_cli.commands.INPUT_COMMANDS`, by name."""
