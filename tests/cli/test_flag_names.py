"""Names of options in messages of plugins."""

from __future__ import annotations

import warnings

import pytest

from perceiver_cli.flag_names import named_flags, with_flags
from perceiver_registry import UserError

VALUES = {
    "data": {"name": "text-files", "val_files": None, "val_fraction": 0.1, "target": "class", "max_seq_len": 4},
    "task": {"name": "regression", "label_smoothing": 0.0, "patience": None},
    "model": {"name": None, "encoder": {"adapter": "text", "params": None}, "params": None},
    "trainer": {"max_steps": 3},
}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "no text (name files with val_files, or raise val_fraction)",
            "no text (name files with --data.val_files, or ",
        ),
        ("val_files: a.txt not found", "--data.val_files: a.txt not found"),
        ("target: must be 'class'", "--data.target: must be 'class'"),
        ("no labels (pass target=class)", "no labels (pass --data.target=class)"),
        ("label_smoothing=2.0: too large", "--task.label_smoothing=2.0: too large"),
        ("patience=0: must be at least 1", "--task.patience=0: must be"),
        ("give encoder.params or model.params", "give --model.encoder.params or --model.params"),
        ("pass trainer.max_steps", "pass --trainer.max_steps"),
    ],
)
def test_options_are_named_by_their_flags(message, expected):
    assert with_flags(message, VALUES).startswith(expected)


@pytest.mark.parametrize(
    "message",
    [
        "--data.val_files: a.txt not found (--data.target=class)",
        "the target of the name: lost patience",
        "the column 'val_files' and \"val_fraction\"",
        "a/val_files/b.txt and val_files.csv and my-val_files: not found",
        "the data's max_seq_len=9 does not fit the model's max_seq_len=4",
        "--x=9: does not fit the data, which has max_seq_len=4",
        "PerceiverARConfig.num_latents=9: must not exceed max_seq_len=4",
        "encoder.other and decoder.params and data.npy",
        "config.trainer.max_steps",
        "name=3, adapter=4",
    ],
)
def test_other_words_are_unchanged(message):
    assert with_flags(message, VALUES) == message


class DataError(UserError):
    pass


def test_errors_keep_their_type():
    with pytest.raises(DataError, match=r"^no rows \(--data.val_files\)$"), named_flags(VALUES):
        raise DataError("no rows (val_files)")


def test_warnings_are_notes():
    with named_flags(VALUES):
        line = warnings.formatwarning(UserWarning("raise max_seq_len"), UserWarning, "", 1)
    assert line == "perceiver: raise --data.max_seq_len\n"
