"""Output of predictions as tables, CSV and JSON, on standard output or in a file, and as Parquet files."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from perceiver_cli.checkpoint_files import replacing, replacing_text
from perceiver_cli.output import EscapingStream, check_writable
from perceiver_cli.parquet import convert_json_lines
from perceiver_cli.tables import print_table
from perceiver_cli.vectors import ids_file
from perceiver_registry import UserError
from perceiver_registry.escaping import ENCODING_ERRORS

Prediction = Mapping[str, Any]


class Rows(Protocol):
    """Conversion of predictions to table rows by a predictor; ``records`` and ``write_text`` are optional."""

    def rows(self, predictions: Iterable[Prediction]) -> Iterator[dict[str, str]]: ...


Write = Callable[[Rows, Iterator[Prediction]], None]

Opener = Callable[["Output"], contextlib.AbstractContextManager[Write]]
"""Function that returns a context manager, which opens the file of an output for writing."""

TEXT_FORMATS = ("csv", "json", "jsonl")
"""Formats of predictions that are also printed, named by suffix."""

PLAIN = (str, int, float, type(None))
"""Types of cells that are written as they are; others, such as dates of Parquet files, are written as text."""

NESTED = (list, dict)
"""Types of cells that are written as JSON."""


@dataclass(frozen=True)
class Output:
    """Destination and format of predictions.

    Args:
        form: "table", one of :data:`TEXT_FORMATS` or of ``binary_formats``.
        file: the file. None: standard output.
        identity: digest of the model, recorded in Parquet files of embeddings.
        kept: columns of input tables that are written before the predictions.
        binary_formats: openers of the formats that need a file, by suffix.
    """

    form: str
    file: Path | None = None
    identity: str = ""
    kept: tuple[str, ...] = ()
    binary_formats: Mapping[str, Opener] = field(default_factory=dict)

    @contextlib.contextmanager
    def opened(self) -> Iterator[Write]:
        """Open the destination for writing. A file is created when all predictions are written, or not at all.

        Raises:
            OSError: if the file cannot be written.
        """
        if self.form == "table":
            yield partial(_write_table, kept=self.kept)
        elif self.form in self.binary_formats:
            with self.binary_formats[self.form](self) as write:
                yield write
        elif self.file is None:
            # rich's progress bars replace sys.stdout while they are drawn.
            yield _writer(self.form, sys.stdout, self.kept)
        else:
            with replacing_text(self.file, ENCODING_ERRORS) as stream:
                yield _writer(self.form, EscapingStream(stream), self.kept)


def choose_output(
    output: str | None,
    form: str | None,
    overwrite: bool,
    takes_folder: bool = False,
    binary_formats: Mapping[str, Opener] | None = None,
) -> tuple[Output, str | None]:
    """Choose destination and format of predictions by the flags.

    Args:
        output: file for predictions, or folder for the images of a task that draws them.
        form: format of the predictions. None: by the file's suffix, or a table.
        overwrite: replace an existing file.
        takes_folder: the task draws images into a folder.
        binary_formats: openers of the formats that need a file, by suffix. None: :data:`BINARY_FORMATS`.

    Returns:
        The destination of predictions, and the task's folder or None.

    Raises:
        UserError: if the format does not fit the file, or if the file cannot be written.
    """
    binary_formats = BINARY_FORMATS if binary_formats is None else binary_formats
    if not output:
        if form in binary_formats:
            raise UserError(f"--format={form}: needs a file (add --output=FILE.{form})")
        return Output(form or "table"), None
    formats = (*TEXT_FORMATS, *binary_formats)
    file = Path(os.path.expanduser(output))
    suffix = file.suffix.lower().removeprefix(".")
    if takes_folder and (suffix not in formats or os.path.isdir(file)):
        return Output(form or "table"), output
    form = _file_format(output, suffix, form, formats)
    check_writable(f"--output={output}", file, overwrite)
    if form == "npy":
        check_writable(f"--output={ids_file(file)}", ids_file(file), overwrite)
    return Output(form, file, binary_formats=binary_formats), None


def _file_format(output: str, suffix: str, form: str | None, formats: Sequence[str]) -> str:
    """Return the format of a file of predictions: the given one, or that of the suffix.

    Raises:
        UserError: if both are missing, or if they differ.
    """
    if form == "table":
        raise UserError(f"--output={output}: tables are not files (use --format={', '.join(formats)})")
    if suffix not in formats:
        if form is None:
            known = f".{', .'.join(formats)}"
            raise UserError(f"--output={output}: unknown suffix (use {known}, or add --format)")
        return form
    if form not in (None, suffix):
        raise UserError(f"--output={output}: suffix does not match --format={form} (leave out one of the two)")
    return suffix


@contextlib.contextmanager
def opened_parquet(output: Output) -> Iterator[Write]:
    """Open a Parquet file of predictions, which appears under its name after all are written, or not at all.

    Predictions are first written to a temporary file in the same folder, since the types of columns depend on all of
    them.

    Raises:
        OSError: if the file cannot be written.
        ModuleNotFoundError: if pyarrow is missing.
    """
    import pyarrow.parquet  # noqa: F401  # optional: missing packages are reported before inputs are read

    assert output.file is not None
    name, folder = str(output.file), output.file.parent
    with (
        replacing(output.file) as stream,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors=ENCODING_ERRORS, newline="", dir=folder) as lines,
    ):

        def write(predictor: Rows, predictions: Iterator[Prediction]) -> None:
            _write_json_lines(predictor, predictions, lines, output.kept)
            convert_json_lines(lines, stream, name)

        yield write


BINARY_FORMATS: Mapping[str, Opener] = {"parquet": opened_parquet}
"""Openers of the formats of predictions that need a file, by suffix."""


def kept_cells(prediction: Prediction, kept: Sequence[str], written: Iterable[str] = ()) -> dict[str, Any]:
    """Return columns of the table row that a prediction belongs to, None for inputs that are not rows of a table file.

    A column with the name of an entry of predictions gets another name: "label (input)".

    Args:
        prediction: the prediction.
        kept: names of the columns.
        written: further names, those of the table row that the prediction is written as.
    """
    find = getattr(prediction.get("input"), "values_by_column", None)
    cells = find()[1] if find is not None else {}
    taken, shown = {*prediction, *written}, {}
    for name in kept:
        free, value = name, cells.get(name)
        while free in taken or (free != name and free in kept):
            free += " (input)"
        shown[free] = value if isinstance(value, PLAIN + NESTED) else str(value)
    return shown


def kept_texts(prediction: Prediction, kept: Sequence[str], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of :func:`kept_cells` for a row of a table, with lists and objects as JSON."""
    cells = kept_cells(prediction, kept, row)
    return {name: _json(value) if isinstance(value, NESTED) else value for name, value in cells.items()}


def _writer(form: str, stream: Any, kept: Sequence[str] = ()) -> Write:
    writers = {"csv": _write_csv, "json": _write_json, "jsonl": _write_json_lines}
    return lambda predictor, predictions: writers[form](predictor, predictions, stream, kept)


def _write_table(predictor: Rows, predictions: Iterator[Prediction], kept: Sequence[str] = ()) -> None:
    """Print a table, or texts for a predictor that writes them."""
    write_text = getattr(predictor, "write_text", None)
    if write_text is not None:
        write_text(predictions, sys.stdout)
        return
    rows = ((prediction, row) for prediction in predictions for row in predictor.rows([prediction]))
    print_table({name: str(value) for name, value in kept_texts(found, kept, row).items()} | row for found, row in rows)


def _write_csv(predictor: Rows, predictions: Iterator[Prediction], stream: Any, kept: Sequence[str]) -> None:
    """Write comma-separated values, with a header if there are predictions."""
    writer = None
    records = getattr(predictor, "records", predictor.rows)
    for prediction in predictions:
        for record in records([prediction]):
            row = kept_texts(prediction, kept, record) | record
            if writer is None:
                writer = csv.DictWriter(stream, fieldnames=list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)


def _write_json(_: Rows, predictions: Iterator[Prediction], stream: Any, kept: Sequence[str]) -> None:
    """Write one list of all predictions."""
    start = "[\n"
    for prediction in predictions:
        lines = _json({**kept_cells(prediction, kept), **prediction}, indent=2).split("\n")
        stream.write(start + "\n".join(f"  {line}" for line in lines))
        start = ",\n"
    stream.write("[]\n" if start == "[\n" else "\n]\n")


def _write_json_lines(_: Rows, predictions: Iterator[Prediction], stream: Any, kept: Sequence[str]) -> None:
    """Write a line per prediction."""
    for prediction in predictions:
        stream.write(f"{_json({**kept_cells(prediction, kept), **prediction})}\n")


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, default=_plain)


def _plain(value: Any) -> Any:
    """Convert an array of float32 to lists of the shortest numbers that are read as the same values, others to text."""
    return value.astype(str).astype(float).tolist() if hasattr(value, "astype") else str(value)
