"""Check that the content of checkpoints can be read back."""

from __future__ import annotations

import io
import pathlib
import random
import sys
from collections import OrderedDict

import pytest
import torch

from perceiver_cli import record
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
    content = {"generators": [random.getstate(), torch.ones(3)], "state": [1, "text", [2, pathlib.Path("file")]]}
    with pytest.raises(UserError, match=r": state\.2\.1 is of type PosixPath, but"):
        check_record(content)
    content["state"].pop()
    check_record(content)


def test_unreadable_key_is_reported():
    with pytest.raises(UserError, match=r": a key of state is of type PosixPath, but"):
        check_record({"state": {"a": 1, pathlib.PosixPath("file"): 2}})
    check_record({"state": {"a": 1, 2: 2, (3, None): 3}})


def test_values_of_other_types_are_written_to_find_out(monkeypatch):
    read = []
    monkeypatch.setattr(record, "_is_read_back", lambda value: bool(read.append(value)) or True)
    check_record({"size": torch.Size([1]), "weights": torch.ones(2), "state": OrderedDict(a=[1, {2, 3}])})
    assert read == [torch.Size([1]), {2, 3}]


def test_attributes_of_tensors_and_ordered_dictionaries_are_checked():
    weights, state = torch.ones(2), OrderedDict(a=1)
    content = {"weights": weights, "state": state}
    weights.origin, state._metadata = "file", {"version": 1}
    check_record(content)
    state._metadata["origin"] = pathlib.Path("file")
    with pytest.raises(UserError, match=r": state\._metadata\.origin is of type PosixPath, but"):
        check_record(content)
    weights.origin = pathlib.Path("file")
    with pytest.raises(UserError, match=r": weights\.origin is of type PosixPath, but"):
        check_record(content)


def test_containers_may_occur_repeatedly_and_in_themselves():
    content = {"state": [1]}
    for _ in range(50):  # a visit of each occurrence would take 2**50 steps
        content = {"a": content, "b": content}
    content["self"] = content
    check_record(content)
    content["b"]["b"]["state"] = {pathlib.Path("file")}
    with pytest.raises(UserError, match=r": a\.a\.state is of type set, but"):
        check_record(content)


def test_too_many_levels_are_reported():
    state = []
    for _ in range(2 * sys.getrecursionlimit()):  # libraries raise the limit
        state = [state]
    with pytest.raises(UserError, match="too many levels"):
        check_record({"state": state})
