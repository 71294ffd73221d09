"""Reports on texts that are cut, or whose tokens are unknown."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from perceiver_plugins.text.adapters import TextInputAdapter
from perceiver_plugins.text.data import LabelledTextFilesDataModule, TextFilesDataModule
from perceiver_plugins.text.reading import MAX_UNKNOWN_TEXTS, TextReader

KNOWN = "the good film was good and the bad film was bad"
UNKNOWN = "这部电影很好看"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))


def write(path: Path, texts: Sequence[str]) -> str:
    path.write_text("\n".join(json.dumps({"text": text, "label": index % 2}) for index, text in enumerate(texts)))
    return str(path)


@pytest.fixture
def module(tmp_path: Path) -> Any:
    """Function that creates a data module of the texts of splits."""

    def module(train: Sequence[str], val: Sequence[str], test: Sequence[str], **options: Any) -> Any:
        files = {
            f"{split}_files": write(tmp_path / f"{split}.jsonl", texts)
            for split, texts in (("train", train), ("val", val), ("test", test))
        }
        kind = options.pop("kind", LabelledTextFilesDataModule)
        return kind(**files, tokenizer=options.pop("tokenizer", "train:word"), **options)

    return module


def reports(module: Any, *stages: str) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for stage in stages:
            module.setup(stage)
    return [str(each.message) for each in caught]


def test_cut_texts_are_counted_in_one_line(module: Any) -> None:
    texts = [" ".join(["word"] * length) for length in (3, 4, 5, 11, 7)]
    data = module(texts, texts[:2], texts[1:3], max_seq_len=6, add_special_tokens=True)
    line = "max_seq_len=6: 3 of 5 texts (60%) of train have up to 13 tokens; only their beginning is read"
    assert reports(data, "fit", "fit") == [f"{line} (raise it to read more)"]
    (line,) = reports(data, "test")
    assert "1 of 2 texts (50%) of test have up to 7 tokens;" in line
    assert reports(data, "test") == []


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"truncation_side": "left"}, "only their end is read"),
        ({"random_train_shift": True}, "only their random part in training and their beginning in evaluation is read"),
    ],
)
def test_part_of_a_cut_text_is_named(options: dict[str, Any], part: str, module: Any) -> None:
    texts = ["word word word", "word word"]
    (line,) = reports(module(texts, texts, texts, max_seq_len=2, **options), "fit")
    assert "1 of 2 texts (50%) of train have up to 3 tokens, 1 of 2 texts (50%) of validation" in line
    assert part in line


def test_texts_of_full_length_are_not_reported(module: Any) -> None:
    texts = ["word word word", "word word"]
    assert reports(module(texts, texts, texts, max_seq_len=3), "fit", "test") == []


def test_texts_of_unknown_tokens_are_counted(module: Any) -> None:
    data = module([KNOWN] * 3 + ["good or bad"] * 2, [KNOWN, f"{KNOWN} {UNKNOWN}"], [UNKNOWN, f"the {UNKNOWN}", KNOWN])
    assert reports(data, "fit") == []
    (line,) = reports(data, "test")
    assert line.startswith("2 of 3 texts (67%) of test: more than half of the tokens are unknown to the tokenizer")


@pytest.mark.parametrize("tokenizer", ["train:bpe", "deepmind/language-perceiver"])
def test_bytes_know_all_texts(tokenizer: str, module: Any) -> None:
    texts = [KNOWN] * 3
    assert reports(module(texts, texts, [UNKNOWN], tokenizer=tokenizer), "fit", "test") == []


def test_masked_text_of_unknown_tokens_is_reported(module: Any) -> None:
    data = module([KNOWN] * 3, [KNOWN], [f"the {UNKNOWN}"], kind=TextFilesDataModule)
    assert reports(data, "fit") == []
    (line,) = reports(data, "test")
    assert line == "88% of the tokens of test: unknown to the tokenizer (is the text in its language?)"


def test_unknown_inputs_are_reported_in_prediction(module: Any, tmp_path: Path) -> None:
    data = module([KNOWN] * 3, [KNOWN], [KNOWN])
    reader = TextReader(data.description(), TextInputAdapter(data.vocab_size, 512, 8))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reader.read(f"the film {UNKNOWN[:2]}")  # half of the tokens
        assert not caught
        for _ in range(MAX_UNKNOWN_TEXTS + 2):
            reader.read(f"the {UNKNOWN}")
    lines = [str(each.message) for each in caught]
    assert len(lines) == MAX_UNKNOWN_TEXTS
    assert lines[0].startswith(f"'the {UNKNOWN}': 88% of its tokens are unknown to the model's tokenizer (")
    assert [line.endswith("not repeated for other such texts)") for line in lines] == [False] * 4 + [True]
