"""Check that the content of checkpoints can be read back."""

from __future__ import annotations

import io
import pathlib
import random

import pytest
import torch

from perceiver_cli.record import PLAIN_TYPES, check_record
from perceiver_registry import UserError


def test_values_of_plain_types_are_read_back():
    values = [True, 0.1, -7, 2**128, "näh \ud800", None]
    assert {type(value) for value in values} == {*PLAIN_TYPES}
    file = io.BytesIO()
    torch.save(values, file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == values


def test_unreadable_entry_is_named_by_its_index():
    record = {"generators": [random.getstate(), torch.ones(3)], "state": [1, "text", [2, pathlib.Path("file")]]}
    with pytest.raises(UserError, match=r": state\.2\.1 is of type PosixPath, but"):
        check_record(record)
    record["state"].pop()
    check_record(record)
