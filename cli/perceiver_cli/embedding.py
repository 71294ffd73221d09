"""Steps of ``embed`` that ``predict`` lacks: checks of its flags, resuming, search in a file of embeddings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from perceiver_cli.journal import identity_of, opened_journal
from perceiver_cli.predictions import Output, Write
from perceiver_cli.values import Values
from perceiver_cli.vectors import VECTOR_FORMATS, opened_vectors, read_vectors
from perceiver_registry import UserError


def check_embedding_flags(output: Output, values: Values) -> None:
    """Check the combination of the flags of ``embed``.

    Raises:
        UserError: if flags exclude each other.
    """
    if values["keep_columns"] and output.form in VECTOR_FORMATS:
        raise UserError(f"--keep_columns: .{output.form} has no other columns (use .csv, .json or .jsonl)")
    if values["pool"] != "mean" and output.form == "csv":
        raise UserError("--pool=none: a row of CSV has one vector (use .parquet, .npy or .jsonl)")
    if values["similar_to"] is not None and output.form in VECTOR_FORMATS:
        raise UserError(
            f"--similar_to: returns similarities, which .{output.form} cannot store (use .csv, .json or .jsonl)"
        )
    file = values["vectors"]
    if file is None:
        return
    if values["similar_to"] is None:
        raise UserError(f"--vectors={file}: has no effect without --similar_to (give both)")
    if values["inputs"] or values["input"] is not None:
        raise UserError(f"--vectors={file}: replaces inputs (leave out one of the two)")
    if not file.lower().endswith(".parquet"):
        raise UserError(f"--vectors={file}: must be a .parquet file of perceiver embed, which names its model")


@contextlib.contextmanager
def opened_embeddings(output: Output) -> Iterator[Write]:
    """Open a file of embeddings, as :func:`~perceiver_cli.vectors.opened_vectors` does."""
    assert output.file is not None
    with opened_vectors(output.form, output.file, output.identity) as write:
        yield lambda _, predictions: write(predictions)


@contextlib.contextmanager
def embedding_run(predictor: Any, output: Output, values: Values) -> Iterator[tuple[Output, Iterator[Any] | None]]:
    """Open the journal of a run of ``embed``, or the file of ``--vectors``.

    An interrupted run with the same output file is resumed.

    Args:
        predictor: the predictor of embeddings, which gets the journal.
        output: destination of the embeddings.
        values: values of the flags.

    Yields:
        The output, with the digest of the model; and the most similar inputs in the file of ``--vectors``, or None
        without this flag.

    Raises:
        UserError: if the file of ``--vectors`` cannot be read, or has embeddings of another model.
    """
    if output.file is None and values["vectors"] is None:
        yield output, None
        return
    identity = identity_of(predictor.model, {name: values[name] for name in ("pool", "quantize")})
    if values["vectors"] is not None:
        stored = read_vectors(Path(os.path.expanduser(values["vectors"])), identity)
        yield output, predictor.most_similar(stored)
        return
    assert output.file is not None
    with opened_journal(output.file, identity) as predictor.journal:
        yield replace(output, identity=identity), None
