"""Files of embeddings: .npy and Parquet, written while inputs are embedded."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TextIO

import numpy as np

from perceiver_cli.checkpoint_files import replacing, replacing_text
from perceiver_cli.parquet import encodable_text, row_groups, write_tables
from perceiver_registry import UserError
from perceiver_registry.errors import in_one_line

VECTOR_FORMATS = ("npy", "parquet")
"""File formats of embeddings, named by suffix."""

IDS_SUFFIX = ".ids.jsonl"
"""Suffix that replaces .npy in the name of the file with the input of each row: a JSON string per line."""

IDENTITY_KEY = "perceiver.identity"
"""Key of the model's digest in the metadata of Parquet files."""

Prediction = Mapping[str, Any]


def ids_file(file: Path) -> Path:
    """Return the path of the file with the inputs, for the file of an array, whose suffix may differ from .npy."""
    return file.with_name(f"{file.stem if file.suffix.lower() == '.npy' else file.name}{IDS_SUFFIX}")


@contextlib.contextmanager
def opened_vectors(form: str, file: Path, identity: str) -> Iterator[Callable[[Iterator[Prediction]], None]]:
    """Open a file of embeddings, which appears under its name after all are written, or not at all.

    Args:
        form: one of :data:`VECTOR_FORMATS`.
        file: the file.
        identity: digest of the model, which Parquet files record.

    Raises:
        OSError: if the file cannot be written.
        ModuleNotFoundError: if pyarrow is missing, for Parquet.
    """
    if form == "npy":
        with replacing_text(ids_file(file)) as ids, replacing(file) as stream:
            yield lambda predictions: _write_npy(predictions, stream, ids)
        return
    import pyarrow.parquet  # noqa: F401  # optional: missing packages are reported before inputs are read

    with replacing(file) as stream:
        yield lambda predictions: _write_parquet(predictions, stream, identity)


def _write_npy(predictions: Iterator[Prediction], stream: IO[bytes], ids: TextIO) -> None:
    """Write an array (inputs, ...) of float32, and the inputs.

    Raises:
        UserError: if embeddings have different shapes.
    """
    shape, count = (0,), 0
    for prediction in predictions:
        embedding = prediction["embedding"]
        if count and embedding.shape != shape:
            raise UserError(
                f"--pool=none: inputs have {shape[0]} and {embedding.shape[0]} latents, which one .npy array cannot "
                "contain (use .parquet, or --pool=mean)"
            )
        if not count:
            _write_npy_header(stream, count, embedding.shape)
        shape, count = embedding.shape, count + 1
        stream.write(embedding.astype("<f4").tobytes())
        ids.write(f"{json.dumps(str(prediction['input']))}\n")
    stream.seek(0)
    _write_npy_header(stream, count, shape)  # again, as the number of rows was unknown


def _write_npy_header(stream: IO[bytes], count: int, shape: tuple[int, ...]) -> None:
    """Write the header of an array (count, ...) of float32. Its size does not depend on the number of rows."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(stream, header)


def _write_parquet(predictions: Iterator[Prediction], stream: IO[bytes], identity: str) -> None:
    """Write the columns "input" and "embedding": lists of float32, or lists of such lists without pooling."""
    import pyarrow as pa  # optional

    metadata = {IDENTITY_KEY: identity}
    groups = row_groups(predictions, lambda prediction: prediction["embedding"].nbytes)
    empty = pa.schema({"input": pa.string(), "embedding": pa.list_(pa.float32())}, metadata)
    write_tables(stream, (_table(group, metadata) for group in groups), empty)


def _table(predictions: Sequence[Prediction], metadata: Mapping[str, str]) -> Any:
    import pyarrow as pa  # optional

    embeddings = [prediction["embedding"] for prediction in predictions]
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(np.concatenate([each.reshape(-1) for each in embeddings])), embeddings[0].shape[-1]
    )
    if embeddings[0].ndim == 2:
        offsets = np.cumsum([0, *map(len, embeddings)], dtype=np.int32)
        vectors = pa.ListArray.from_arrays(pa.array(offsets), vectors)
    inputs = pa.array([encodable_text(prediction["input"]) for prediction in predictions], pa.string())
    return pa.table({"input": inputs, "embedding": vectors}, metadata=metadata)


def read_vectors(file: Path, identity: str) -> Iterator[Prediction]:
    """Read the inputs and embeddings of a Parquet file in batches of rows.

    Args:
        file: the file.
        identity: digest of the model that computed the embeddings.

    Raises:
        UserError: if the file cannot be read, is not a file of embeddings, or has embeddings of another model. The
            iterator raises it, too, if a batch of rows is damaged.
    """
    import pyarrow as pa  # optional
    import pyarrow.parquet as pq

    if not file.is_file():
        raise UserError(f"--vectors={file}: file not found (relative to {os.getcwd()})")
    damage = (OSError, pa.ArrowException, ValueError, KeyError, TypeError, AttributeError)
    with _readable(file, damage):
        stored = pq.ParquetFile(file, page_checksum_verification=True)
    found = (stored.schema_arrow.metadata or {}).get(IDENTITY_KEY.encode())
    if found is None:
        raise UserError(f"--vectors={file}: not a file of perceiver embed")
    if found != identity.encode():
        raise UserError(
            f"--vectors={file}: has embeddings of another model or of other options (embed the inputs again)"
        )
    with _readable(file, damage):
        if stored.schema_arrow.field("input").type != pa.string():
            raise ValueError("its inputs are not texts")
    return _stored(file, stored, damage)


@contextlib.contextmanager
def _readable(file: Path, damage: tuple[type[Exception], ...]) -> Iterator[None]:
    """Convert errors of a damaged file of embeddings within this context to user errors."""
    try:
        yield
    except damage as error:
        raise UserError(f"--vectors={file}: cannot be read ({in_one_line(error)})") from error


def _stored(file: Path, stored: Any, damage: tuple[type[Exception], ...]) -> Iterator[Prediction]:
    """Yield the rows of an open Parquet file, and close it."""
    with stored:
        batches, num_missing = stored.iter_batches(), stored.metadata.num_rows
        while True:
            with _readable(file, damage):
                batch = next(batches, None)
                if batch is None and num_missing:
                    raise ValueError(f"rows missing: {num_missing}")
                if batch is None:
                    return
                num_missing -= len(batch)
                embeddings = batch["embedding"]
                vectors = embeddings.flatten().to_numpy(zero_copy_only=False).reshape(len(embeddings), -1)
                names = batch["input"].to_pylist()
            for name, vector in zip(names, vectors, strict=True):
                yield {"input": name, "embedding": vector}
