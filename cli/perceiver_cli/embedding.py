"""Steps of ``embed`` beyond those of ``predict``: formats of vectors, resuming, search in a file of embeddings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from perceiver_cli.journal import identity_of, resumable
from perceiver_cli.predictions import Output
from perceiver_cli.values import Values
from perceiver_cli.vectors import VECTOR_FORMATS, read_vectors
from perceiver_registry import UserError


def check_embedding_flags(output: Output, values: Values) -> None:
    """Check that the flags of ``embed`` fit together.

    Raises:
        UserError: if they do not.
    """
    if values["pool"] != "mean" and output.form == "csv":
        raise UserError("--pool=none: a row of CSV has one vector (use .parquet, .npy or .jsonl)")
    if values["similar_to"] is not None and output.form in VECTOR_FORMATS:
        raise UserError(f"--similar_to: has similarities, not vectors for .{output.form} (use .csv, .json or .jsonl)")
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
def embedding_run(predictor: Any, output: Output, values: Values) -> Iterator[tuple[Output, Iterator[Any] | None]]:
    """Prepare a run of ``embed``.

    An interrupted run that embedded for the same file is resumed, and this one can be.

    Args:
        predictor: the predictor of embeddings.
        output: destination of the embeddings.
        values: values of the flags.

    Yields:
        The output, which records the model, and the most similar inputs of ``--vectors``; None without this flag.

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
    with resumable(output.file, identity) as predictor.journal:
        yield replace(output, identity=identity), None
