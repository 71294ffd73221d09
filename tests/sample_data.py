"""Data sets that some tests read beside generated data.

The environment variable PERCEIVER_TEST_DATA names the folder that contains them. Tests whose files are missing are
skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "PERCEIVER_TEST_DATA"


def sample_data(name: str) -> Path:
    """Return the path of a file or folder of the sample data; skip the calling test if it is missing.

    Args:
        name: path within the folder, such as ``"sst2/train.jsonl.xz"``.
    """
    folder = os.environ.get(VARIABLE)
    if folder is None:
        pytest.skip(f"{name}: not available (set {VARIABLE} to the folder with sample data)")
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"{name}: not found in {folder} ({VARIABLE})")
    return path
