"""Training data of estimators: tables, texts and images in memory as files of a temporary folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from perceiver_plugins.sdk.errors import one_line
from perceiver_zoo.inputs import as_table

Kind = Literal["table", "text", "image"]
"""Kind of inputs."""

TEXT_COLUMN = "text"
"""Name of the column of texts in training data."""

TABLE_FILE = "X.parquet"
"""Name of the file of a table or of texts."""


def infer_input_kind(inputs: Any) -> Kind:
    """Infer the kind of inputs from the first one. Arrays are tables unless they are images or texts."""
    if hasattr(inputs, "columns"):
        return "table"
    shape = getattr(inputs, "shape", None)
    if shape is not None and len(shape) > 1:
        return "image" if len(shape) in (3, 4) and inputs.dtype == np.uint8 else "table"
    first = next(iter(inputs), None) if hasattr(inputs, "__iter__") else None
    if isinstance(first, str):
        return "text"
    is_image = hasattr(first, "getbands") or (isinstance(first, np.ndarray) and first.dtype == np.uint8)
    return "image" if shape is None and is_image else "table"


def to_model_inputs(inputs: Any, kind: Kind, names: Sequence[str]) -> Any:
    """Convert inputs to those of :meth:`~perceiver_zoo.LoadedModel.predict`.

    Args:
        inputs: the inputs.
        kind: their kind.
        names: names of the columns of a table.

    Raises:
        ValueError: if one of the texts is not a string.
    """
    if kind == "table":
        is_frame = hasattr(inputs, "columns")
        table = as_table(inputs if is_frame else {name: inputs[:, index] for index, name in enumerate(names)})
        return table.select(range(len(names))).rename_columns(list(names))  # without the index of pandas
    inputs = list(inputs)
    if kind == "image":
        return inputs
    for index, text in enumerate(inputs):
        if not isinstance(text, str):
            raise ValueError(f"X: all texts must be strings, got {type(text).__name__} at index {index}")
    return [{TEXT_COLUMN: text} for text in inputs]  # not strings, which could name a file


def write_data(folder: Path, kind: Kind, inputs: Any, labels: np.ndarray) -> dict[str, Any]:
    """Write training data, and return the options of the data module that reads it.

    Args:
        folder: an empty folder.
        kind: the kind of inputs.
        inputs: result of :func:`to_model_inputs`.
        labels: class indices (b,), or targets (b,) or (b, t).

    Raises:
        ValueError: if a column of a table has values that Parquet files do not have, or an image cannot be written.
    """
    if kind == "image":
        _write_images(folder / "X", inputs, labels)
        return {"name": "image-folder", "path": folder / "X"}
    import pyarrow as pa  # optional
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(inputs) if kind == "text" else inputs
    columns: list[str] = []
    for target in labels.reshape(len(labels), -1).T:
        columns.append(_unused(f"y{len(columns)}", table.column_names))
        table = table.append_column(columns[-1], pa.array(target))
    try:
        pq.write_table(table, folder / TABLE_FILE)
    except pa.ArrowException as error:
        raise ValueError(f"X: a column has values that cannot be stored ({one_line(error)})") from error
    options = {"train_files": folder / TABLE_FILE, "label_column": columns[0] if len(columns) == 1 else columns}
    if kind == "text":
        return {"name": "text-files", "text_column": TEXT_COLUMN, **options}
    features = table.column_names[: -len(columns)]
    # Paths of images are relative to the current folder, not to that of the written table.
    return {"name": "table-files", "feature_columns": features, "image_folder": os.getcwd(), **options}


def _unused(name: str, taken: Sequence[str]) -> str:
    """Append underscores to a name until no column has it."""
    while name in taken:
        name += "_"
    return name


def _write_images(folder: Path, images: Sequence[Any], labels: np.ndarray) -> None:
    """Write images losslessly to a folder for each class, named after its index.

    Raises:
        ValueError: if an input is not an image.
    """
    from perceiver_plugins.image.data.decoding import IN_MEMORY, copy_image  # optional

    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        if not isinstance(image, IN_MEMORY):
            raise ValueError(f"X: all inputs must be images, got {type(image).__name__} at index {number}")
        file = folder / str(label) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        copied = copy_image(image, f"X[{number}]")
        (copied.convert("RGB") if copied.mode in ("CMYK", "YCbCr", "LAB", "HSV") else copied).save(file)
