"""Fixture that writes tables in all file formats."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Rows = Sequence[dict[str, Any]]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Rows], str]:
    """Function that writes rows to a file in the format of its suffix; None is a missing value."""

    def write(name: str, rows: Rows) -> str:
        path = tmp_path / name
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(list(rows)), path)
        elif name.endswith(".jsonl"):
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            with gzip.open(path, "wt", newline="") if name.endswith(".gz") else path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if ".tsv" in name else ",")
                writer.writeheader()
                writer.writerows(rows)
        return str(path)

    return write
