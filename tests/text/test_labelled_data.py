"""Labelled text: classes, numbers, and classes of tokens."""

from __future__ import annotations

import json
import lzma
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import datasets
import jsonargparse
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sample_data import sample_data
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.text.data import (
    HubTextDataModule,
    ImdbDataModule,
    LabelledHubTextDataModule,
    LabelledImdbDataModule,
    LabelledTextDataModule,
    LabelledTextFilesDataModule,
    LanguagesDataModule,
    MaskedLanguagesDataModule,
    PythonCodeDataModule,
    PythonDocsDataModule,
    TextFilesDataModule,
    WikiTextDataModule,
    python_code,
)
from perceiver_plugins.text.data.labels import first_label_in_spans
from perceiver_plugins.text.data.languages import language_texts
from perceiver_plugins.text.data.python_code import classify
from perceiver_registry.errors import UserError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Function that writes rows to a file of JSON lines and returns its path."""

    def write(rows: Sequence[dict[str, Any]], name: str = "train.jsonl") -> str:
        (tmp_path / name).write_text("\n".join(json.dumps(row) for row in rows))
        return str(tmp_path / name)

    return write


def rows(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"text": text, "label": label} for text, label in pairs]


def examples(module: LabelledTextDataModule, split: str = "train") -> list[tuple[str, Any]]:
    """Decode (text, labels) of each example of a split of a byte tokenizer."""
    if not module.split_datasets:
        module.setup()
    dataset = module.split_datasets[split]
    rows = (dataset[index] for index in range(len(dataset)))
    return [(text_of(row["input_ids"]), row["labels"].numpy()) for row in rows]


def text_of(ids: Any) -> str:
    return bytes(int(token) - 6 for token in ids if token >= 6).decode()


def word_tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece tokenizer of a few words, with [CLS] and [SEP] around a text."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##happy", "##ly", "new", "york", "is", "the"]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep", "mask")},
    )


# class names


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["b", "a", "c", "a"], ["a", "b", "c"]),
        ([10, 9, 2, 9], ["2", "9", "10"]),
        (["10", "9", "2", "9"], ["2", "9", "10"]),
        ([True, False, False, True], ["false", "true"]),
        ([1.0, 0.0, 1.0, 0.0], ["0", "1"]),
        ([-1, 1, 0, 0], ["-1", "0", "1"]),
        (["x", "1", "x", "1"], ["1", "x"]),
    ],
)
def test_label_names_of_training_data(labels: list[Any], names: list[str], write: Callable[..., str]) -> None:
    train = write(rows(*((f"text {number}", label) for number, label in enumerate(labels))))
    val = write(rows(("other", labels[0])), "val.jsonl")
    module = LabelledTextFilesDataModule(train, val, target="class")
    assert (module.label_names, module.num_classes) == (names, len(names))
    expected = [names.index(str(int(label) if isinstance(label, float) else label).lower()) for label in labels]
    assert [int(label) for _, label in examples(module)] == expected
    assert module.class_counts == np.bincount(expected).tolist()
    assert [int(label) for _, label in examples(module, "validation")] == expected[:1]


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([0, 2, 1], ["bad", "fair", "good"], [0, 2, 1]),
        (["0", "2", "1"], ["bad", "fair", "good"], [0, 2, 1]),
        ([False, True], ["no", "yes"], [0, 1]),
        (["b", "a", "b"], ["b", "a", "z"], [0, 1, 0]),
        ([5, 1, 5], ["1", "2", "3", "4", "5"], [4, 0, 4]),
    ],
)
def test_given_label_names(labels: list[Any], names: list[str], expected: list[int], write: Callable[..., str]) -> None:
    train = write(rows(*((f"text {number}", label) for number, label in enumerate(labels))))
    module = LabelledTextFilesDataModule(train, train_copy(train), target="class", label_names=names)
    assert module.label_names == names
    assert [int(label) for _, label in examples(module)] == expected
    assert module.class_counts == np.bincount(expected, minlength=len(names)).tolist()


def train_copy(train: str) -> str:
    path = Path(train).with_name("copy" + "".join(Path(train).suffixes))
    path.write_bytes(Path(train).read_bytes())
    return str(path)


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl.xz", ".json", ".parquet"])
def test_formats(kind: str, tmp_path: Path) -> None:
    pairs = [(f"text, {number} é", ["ham", "spam"][number % 2]) for number in range(6)]
    path = tmp_path / f"train{kind}"
    if kind in (".csv", ".tsv"):
        delimiter = {".csv": ",", ".tsv": "\t"}[kind]
        path.write_text("\n".join(["body,kind".replace(",", delimiter), *(f'"{a}"{delimiter}{b}' for a, b in pairs)]))
    elif kind == ".parquet":
        pq.write_table(pa.table({"body": [a for a, _ in pairs], "kind": [b for _, b in pairs]}), path)
    else:
        objects = [{"body": a, "kind": b} for a, b in pairs]
        text = json.dumps(objects) if kind == ".json" else "\n".join(map(json.dumps, objects))
        path.write_bytes(lzma.compress(text.encode()) if kind.endswith(".xz") else text.encode())
    columns = {"text_column": "body", "label_column": "kind"}
    module = LabelledTextFilesDataModule(str(path), train_copy(str(path)), target="class", **columns)
    assert examples(module) == [(text, int(label == "spam")) for text, label in pairs]
    assert module.label_names == ["ham", "spam"]


# examples and batches


def test_batches_of_classes(write: Callable[..., str]) -> None:
    train = write(rows(("long text", "b"), ("tiny", "a")))
    module = LabelledTextFilesDataModule(train, train_copy(train), target="class", batch_size=2, padding_side="left")
    module.setup()
    batch = next(iter(module.val_dataloader()))
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert batch["input_ids"].shape == (2, 9)
    assert batch["attention_mask"][1].tolist() == [0] * 5 + [1] * 4
    assert text_of(batch["input_ids"][1]) == "tiny"
    assert batch["labels"].tolist() == [1, 0]
    assert {value.dtype for value in batch.values()} == {torch.int64}


def test_numbers(write: Callable[..., str]) -> None:
    values = [(1.5, 7), (None, "8"), (-2, 9.0), (4, "")]
    train = write([{"text": f"t{n}", "a": a, "b": b} for n, (a, b) in enumerate(values)])
    module = LabelledTextFilesDataModule(
        train, train_copy(train), target="number", label_column=["a", "b"], batch_size=4
    )
    assert (module.num_targets, module.target_names) == (2, ["a", "b"])
    assert module.target_mean == pytest.approx([np.mean([1.5, -2, 4]), 8])
    assert module.target_std == pytest.approx([np.std([1.5, -2, 4]), np.std([7, 8, 9])])
    module.setup()
    labels = next(iter(module.val_dataloader()))["labels"]
    nan = float("nan")
    expected = torch.tensor([[1.5, 7], [nan, 8], [-2, 9], [4, nan]], dtype=torch.float64)
    torch.testing.assert_close(labels, expected, equal_nan=True)
    single = LabelledTextFilesDataModule(train, train_copy(train), target="number", label_column="a")
    assert examples(single)[0][1].tolist() == [1.5]


def test_long_documents_are_cut(write: Callable[..., str]) -> None:
    text = "".join(f"{number:03d}" for number in range(100))
    train = write(rows((text, 0), ("short", 1)))
    files = (train, train_copy(train))
    options = {"target": "class", "max_seq_len": 30, "random_min_seq_len": 10}
    assert [text for text, _ in examples(LabelledTextFilesDataModule(*files, **options))] == [text[:30], "short"]
    end = LabelledTextFilesDataModule(*files, truncation_side="left", **options)
    assert [text for text, _ in examples(end)] == [text[-30:], "short"]


def test_random_shift_and_truncation(write: Callable[..., str]) -> None:
    text = "".join(f"{number:03d}" for number in range(100))
    train = write(rows((text, 0), ("short", 1)))
    files = (train, train_copy(train))
    options = {"target": "class", "max_seq_len": 30, "random_min_seq_len": 10}
    shifted = LabelledTextFilesDataModule(*files, random_train_shift=True, **options)
    assert [text for text, _ in examples(shifted, "validation")] == [text[:30], "short"]
    dataset = shifted.split_datasets["train"]
    drawn = [text_of(dataset[epoch, 0]["input_ids"]) for epoch in range(200)]
    assert all(len(part) == 30 and part in text for part in drawn)
    assert len(set(drawn)) > 100
    assert drawn == [text_of(dataset[epoch, 0]["input_ids"]) for epoch in range(200)]
    assert text_of(dataset[7, 1]["input_ids"]) == "short"

    truncated = LabelledTextFilesDataModule(*files, random_train_truncation=True, **options)
    assert {len(text) for text, _ in examples(truncated, "validation")} == {30, 5}
    lengths = {len(truncated.split_datasets["train"][epoch, 0]["input_ids"]) for epoch in range(300)}
    assert lengths == set(range(10, 31))


def test_special_tokens_enclose_cut_documents(write: Callable[..., str]) -> None:
    train = write(rows(("the new york is the new", 0), ("unhappyly", 1)))
    tokenizer = word_tokenizer()
    module = LabelledTextFilesDataModule(
        train,
        train_copy(train),
        target="class",
        tokenizer=tokenizer,  # type: ignore[arg-type]
        max_seq_len=5,
        add_special_tokens=True,
    )
    module.setup()
    for index, text in enumerate(("the new york is the new", "unhappyly")):
        expected = tokenizer(text, truncation=True, max_length=5)["input_ids"]
        assert module.split_datasets["validation"][index]["input_ids"].tolist() == expected
    with pytest.raises(UserError, match="max_seq_len=2: must be greater than 2, the number of special tokens"):
        LabelledTextFilesDataModule(
            train,
            train_copy(train),
            target="class",
            tokenizer=tokenizer,  # type: ignore[arg-type]
            max_seq_len=2,
            add_special_tokens=True,
        ).setup()


def test_texts_without_tokens_are_left_out(write: Callable[..., str]) -> None:
    pairs = [("new", 0), ("", 1), (None, 1), ("  ", 1), ("york", 1)]
    train = write(rows(*pairs))
    by_words = LabelledTextFilesDataModule(train, train_copy(train), target="class", tokenizer=word_tokenizer())  # type: ignore[arg-type]
    by_words.setup()
    assert by_words.split_datasets["train"].__getitems__([0, 1])["labels"].tolist() == [0, 1]
    assert by_words.class_counts == [1, 1]
    assert [text for text, _ in examples(LabelledTextFilesDataModule(train, train_copy(train), target="class"))] == [
        "new",
        "  ",
        "york",
    ]


def test_labels_beyond_the_end_are_ignored(write: Callable[..., str]) -> None:
    train = write([{"text": "ab", "label": n, "x": n, "y": 2 * n, "tags": ["a", "b"]} for n in range(2)])
    files = (train, train_copy(train))
    for options, expected in (
        ({"target": "class"}, [IGNORED] * 2),
        ({"target": "number", "label_column": ["x", "y"]}, [[np.nan] * 2] * 2),
        ({"target": "token", "label_column": "tags", "tokens_column": None}, [[IGNORED] * 2] * 2),
    ):
        module = LabelledTextFilesDataModule(*files, **options)  # type: ignore[arg-type]
        module.setup()
        dataset = module.split_datasets["validation"]
        labels = dataset.__getitems__([len(dataset), len(dataset) + 5])["labels"]
        np.testing.assert_array_equal(labels.numpy(), np.array(expected))


@pytest.mark.slow
def test_batches_do_not_depend_on_workers(write: Callable[..., str]) -> None:
    train = write(rows(*((f"text {number} " * (number % 9 + 1), number % 3) for number in range(60))))
    options = {"target": "class", "max_seq_len": 40, "batch_size": 8, "random_train_shift": True, "seed": 3}
    batches = []
    for workers, preparing in ((0, 1), (2, 2)):
        module = LabelledTextFilesDataModule(
            train, num_workers=workers, preproc_workers=preparing, cache_dir=train + str(workers), **options
        )
        module.setup()
        batches.append(list(module.train_dataloader()))
    assert len(batches[0]) == 7
    for one, other in zip(*batches, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


# tokens


def test_word_labels_with_byte_tokenizer(write: Callable[..., str]) -> None:
    train = write([{"tokens": ["Zoë", "is", "in", "Rome"], "tags": ["B-PER", "O", None, "B-LOC"]}])
    module = LabelledTextFilesDataModule(train, train_copy(train), target="token", label_column="tags", batch_size=1)
    assert module.label_names == ["B-LOC", "B-PER", "O"]
    assert module.class_counts == [4, 4, 2]
    module.setup()
    batch = next(iter(module.val_dataloader()))
    assert text_of(batch["input_ids"][0]) == "Zoë is in Rome"
    gap = IGNORED
    assert batch["labels"].tolist() == [[1] * 4 + [gap] + [2] * 2 + [gap] * 4 + [0] * 4]
    assert batch["labels"].dtype == torch.int64


def test_word_labels_with_subword_tokenizer(write: Callable[..., str]) -> None:
    words = [["unhappyly", "is", "New", "York"], ["the", "unhappy"]]
    tags = [["x", "y", "z", "x"], ["y", "z"]]
    train = write([{"tokens": w, "tags": t} for w, t in zip(words, tags, strict=True)])
    tokenizer = word_tokenizer()
    module = LabelledTextFilesDataModule(
        train,
        train_copy(train),
        target="token",
        label_column="tags",
        tokenizer=tokenizer,  # type: ignore[arg-type]
        add_special_tokens=True,
        batch_size=2,
    )
    module.setup()
    batch = next(iter(module.val_dataloader()))
    # the recipe of Hugging Face's course: -100 for special tokens and for all but the first token of a word
    encoded = tokenizer(words, is_split_into_words=True, padding=True)
    expected = []
    for row, row_tags in enumerate(tags):
        ids = encoded.word_ids(row)
        firsts = [word is not None and word not in ids[:index] for index, word in enumerate(ids)]
        expected.append(
            ["xyz".index(row_tags[word]) if first else -100 for word, first in zip(ids, firsts, strict=True)]
        )
    assert batch["input_ids"].tolist() == encoded["input_ids"]
    assert batch["labels"].tolist() == expected


def test_character_labels(write: Callable[..., str]) -> None:
    train = write([{"text": "é(b)", "tags": ["n", "o", "n", "o"]}, {"text": "", "tags": []}])
    options = {"target": "token", "tokens_column": None, "label_column": "tags"}
    module = LabelledTextFilesDataModule(train, train_copy(train), **options)
    [(text, labels)] = examples(module)
    assert (text, labels.tolist()) == ("é(b)", [0, 0, 1, 0, 1])
    cut = LabelledTextFilesDataModule(train, train_copy(train), max_seq_len=4, random_min_seq_len=1, **options)
    assert examples(cut)[0][1].tolist() == [0, 0, 1, 0]


def test_first_label_in_spans() -> None:
    gap = IGNORED
    characters = np.array([gap, 3, gap, gap, 5, 6])
    spans = np.array([[0, 1], [0, 2], [1, 2], [2, 4], [2, 6], [5, 6], [6, 6]])
    assert first_label_in_spans(characters, spans).tolist() == [gap, 3, 3, gap, 5, 6, gap]
    assert first_label_in_spans(np.zeros(0, int), np.zeros((0, 2), int)).tolist() == []


# splits


def test_validation_split_is_stratified(write: Callable[..., str]) -> None:
    sizes = {"a": 200, "b": 60, "c": 20, "d": 3}
    pairs = [(f"{label} {number}", label) for label, size in sizes.items() for number in range(size)]
    module = LabelledTextFilesDataModule(write(rows(*pairs)), target="class", val_fraction=0.1, seed=1)
    held_out = examples(module, "validation")
    assert Counter(module.label_names[label] for _, label in held_out) == {"a": 20, "b": 6, "c": 2}
    texts = [text for text, _ in held_out] + [text for text, _ in examples(module)]
    assert sorted(texts) == sorted(text for text, _ in pairs)
    assert module.class_counts == [180, 54, 18, 3]
    again = LabelledTextFilesDataModule(
        write(rows(*pairs[::-1]), "turned.jsonl"), target="class", val_fraction=0.1, seed=2
    )
    assert sorted(examples(again, "validation")) == sorted(held_out)


def test_equal_texts_stay_in_one_split(write: Callable[..., str]) -> None:
    pairs = [(f"text {number % 40}", number % 2) for number in range(400)]
    module = LabelledTextFilesDataModule(write(rows(*pairs)), target="class", val_fraction=0.3)
    parts = [{text for text, _ in examples(module, split)} for split in ("train", "validation")]
    assert not parts[0] & parts[1]
    assert len(parts[1]) == 12


TWO_TEXTS = [("good", "a"), ("bad", "b")]
ONE_EACH = r"2 of {}, one of each class \(name files with val_files, or add other texts\)"


@pytest.mark.parametrize(
    ("pairs", "target", "reason"),
    [
        (TWO_TEXTS * 6, "class", ONE_EACH.format(12)),
        (TWO_TEXTS, "class", ONE_EACH.format(2)),
        ([("good", 1), ("good", 2)], "number", r"1 of 2 \(name files with val_files, or add other"),
        # The text of two that would be held out is the one that is repeated.
        ([("bad", "a")] * 11 + [("good", "a"), ("x", "b")], "class", r"3 of 13 \(.* raise val_fra"),
    ],
)
def test_equal_texts_without_one_to_hold_out_are_reported(
    pairs: list[tuple[str, Any]], target: Any, reason: str, write: Callable[..., str]
) -> None:
    module = LabelledTextFilesDataModule(write(rows(*pairs)), target=target, val_fraction=0.1)
    module.setup()
    cause = f"no text for validation: equal texts are kept in one split; distinct texts: {reason}"
    with pytest.raises(DataError, match=f"^{cause}"):
        module.examples("validation")
    raised = LabelledTextFilesDataModule(write(rows(*pairs)), target=target, val_fraction=0.95)
    raised.setup()
    assert ("validation" in raised.split_datasets) == ("raise val_fra" in reason)


def test_validation_split_of_numbers(write: Callable[..., str]) -> None:
    module = LabelledTextFilesDataModule(
        write(rows(*((f"text {number}", number) for number in range(40)))), target="number", val_fraction=0.25
    )
    assert [len(examples(module, split)) for split in ("train", "validation")] == [30, 10]
    labels = [label[0] for _, label in examples(module)]
    assert module.target_mean == pytest.approx([np.mean(labels)])


# cache


def test_cache_key(write: Callable[..., str]) -> None:
    train = write(rows(*((f"text {number}", number % 2) for number in range(40))))
    first = LabelledTextFilesDataModule(train, target="class")
    assert first.label_names == ["0", "1"]
    same = LabelledTextFilesDataModule(train, target="class", max_seq_len=9, add_special_tokens=True)
    assert same.folder == first.folder
    others = [
        LabelledTextFilesDataModule(train, target="class", label_names=["a", "b"]),
        LabelledTextFilesDataModule(train, target="number"),
        LabelledTextFilesDataModule(train, target="class", val_fraction=0.2),
        TextFilesDataModule(train),
    ]
    assert len({module.folder for module in (first, *others)}) == 5
    assert others[0].label_names == ["a", "b"]
    stamp = (first.folder / "labels.json").stat().st_mtime_ns
    first_again = LabelledTextFilesDataModule(train, target="class")
    assert first_again.class_counts == first.class_counts
    assert (first.folder / "labels.json").stat().st_mtime_ns == stamp


def test_failed_preparation_leaves_no_files(write: Callable[..., str]) -> None:
    module = LabelledTextFilesDataModule(write(rows(("a", 1), ("b", None))), target="class")
    with pytest.raises(DataError):
        module.prepare_data()
    assert [path.suffix for path in module.folder.parent.iterdir()] == [".lock"]


def test_tokenizer_without_mask_token_is_accepted(write: Callable[..., str]) -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]")), unk_token="[UNK]"
    )
    train = write(rows(("a", 0), ("b", 1)))
    module = LabelledTextFilesDataModule(train, train_copy(train), target="class", tokenizer=tokenizer)  # type: ignore[arg-type]
    assert module.num_classes == 2


def test_properties_of_other_targets_are_refused(write: Callable[..., str]) -> None:
    train = write(rows(("a", 0), ("b", 1)))
    module = LabelledTextFilesDataModule(train, train_copy(train), target="number")
    with pytest.raises(UserError, match=r"target=number: the data has no label_names \(pass target=class"):
        _ = module.label_names
    assert not hasattr(TextFilesDataModule(train), "num_classes")
    with pytest.raises(UserError, match=r"target=class: the data has no target_mean \(pass target=number"):
        _ = LabelledTextFilesDataModule(train, train_copy(train), target="class").target_mean
    assert not hasattr(module, "class_counts")


def test_description(write: Callable[..., str]) -> None:
    train = write(rows(("a", 0), ("b", 1)))
    module = LabelledTextFilesDataModule(train, target="class", truncation_side="left", add_eos_token=True)
    description = module.description()
    assert (description["target"], description["truncation_side"], description["add_eos_token"]) == (
        "class",
        "left",
        True,
    )
    json.dumps(description)


# data sets of the hub, and folders


def labelled_set(names: list[str] | None = None) -> datasets.Dataset:
    values = {"text": [f"text {number}" for number in range(20)], "label": [number % 2 for number in range(20)]}
    data = datasets.Dataset.from_dict(values)
    return data.cast_column("label", datasets.ClassLabel(names=names)) if names else data


def test_class_names_of_data_set_are_kept(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": labelled_set(["pos", "neg"]), "test": labelled_set(["pos", "neg"])}).save_to_disk(
        tmp_path / "data"
    )
    module = LabelledHubTextDataModule(str(tmp_path / "data"), target="class", val_fraction=0.2)
    assert module.label_names == ["pos", "neg"]
    assert module.class_counts == [8, 8]
    assert examples(module, "test")[:2] == [("text 0", 0), ("text 1", 1)]
    renamed = LabelledHubTextDataModule(str(tmp_path / "data"), target="class", label_names=["good", "bad"])
    assert renamed.label_names == ["good", "bad"]
    with pytest.raises(
        DataError, match=r"data, split 'train': no column 'mood'; label_column must be one of: text, la"
    ):
        LabelledHubTextDataModule(str(tmp_path / "data"), target="class", label_column="mood").prepare_data()


def test_token_classes_of_data_set(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B-LOC"])),
        }
    )
    values = {"tokens": [["in", "Rome"], ["here"]], "ner_tags": [[0, 1], [0]]}
    datasets.Dataset.from_dict(values, features).save_to_disk(tmp_path / "data")
    module = LabelledHubTextDataModule(
        str(tmp_path / "data"), target="token", label_column="ner_tags", val_fraction=0.5
    )
    assert module.label_names == ["O", "B-LOC"]
    parts = {text: labels.tolist() for split in ("train", "validation") for text, labels in examples(module, split)}
    assert parts == {"in Rome": [0, 0, IGNORED, 1, 1, 1, 1], "here": [0] * 4}


def test_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, subset: str | None, split: str, **_: Any) -> datasets.Dataset:
        requested.add(split)
        return labelled_set(["neg", "pos"])

    requested: set[str] = set()
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_, **__: ["train", "test", "unsupervised"])
    module = LabelledImdbDataModule(target="class", val_fraction=0.2)
    assert module.label_names == ["neg", "pos"]
    module.setup()
    assert {split: len(dataset) for split, dataset in module.split_datasets.items()} == {
        "train": 16,
        "validation": 4,
        "test": 20,
    }
    assert requested == {"train", "test"}


def test_local_folder_for_imdb(tmp_path: Path) -> None:
    for split in ("train", "test"):
        objects = [{"text": f"{split} {number}", "label": number % 2, "rating": number} for number in range(20)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, objects)))
    (tmp_path / "train-README.txt").write_text("no review")
    module = LabelledImdbDataModule(str(tmp_path), target="class", label_names=["neg", "pos"], val_fraction=0.1)
    assert (module.label_names, module.class_counts) == (["neg", "pos"], [9, 9])
    assert [len(examples(module, split)) for split in ("validation", "test")] == [2, 20]
    ratings = LabelledImdbDataModule(str(tmp_path), target="number", label_column="rating", val_split="test")
    assert ratings.target_mean == [9.5]


def test_missing_labels_in_data_set_are_refused(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])})
    data = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [0, -1]}, features)
    data.save_to_disk(tmp_path / "data")
    with pytest.raises(DataError, match=r"split 'train', row 2: the label -1 is out of range: .* 0 to 1 \(-1 means"):
        LabelledHubTextDataModule(str(tmp_path / "data"), target="class").prepare_data()


# deprecated choice of a class by target


@pytest.mark.parametrize(
    ("module", "target", "expected"),
    [
        (TextFilesDataModule, "number", LabelledTextFilesDataModule),
        (HubTextDataModule, "class", LabelledHubTextDataModule),
        (ImdbDataModule, "class", LabelledImdbDataModule),
    ],
)
def test_target_redirects_to_labelled_class(module: Any, target: str, expected: type, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join(json.dumps({"text": f"text {number}", "label": number}) for number in range(9)))
    source = str(file) if module is TextFilesDataModule else str(tmp_path)
    with pytest.warns(DeprecationWarning, match=rf"target='{target}'\) is deprecated: use {expected.__name__}"):
        made = module(source, target=target, max_seq_len=40)
    assert type(made) is expected
    assert (made.target, made.max_seq_len) == (target, 40)
    for option in ({"mask_prob": 0.3}, {"streaming": True}):
        with pytest.raises(UserError, match=rf"{min(option)}: has no effect with target=class \(leave it out\)"):
            module(source, target="class", **option)
    with pytest.raises(UserError, match=rf"target=clas: {module.__name__} has no such labels \(it has target=masked"):
        module(source, target="clas")


def test_subclasses_do_not_redirect(write: Callable[..., str]) -> None:
    class Mine(TextFilesDataModule):
        pass

    train = write(rows(("a", 0), ("b", 1)))
    assert type(Mine(train, target="masked")) is Mine
    with pytest.raises(UserError, match=r"target=class: Mine has no such labels \(it has target=masked\)"):
        Mine(train, target="class")  # type: ignore[arg-type]


def test_target_redirects_to_masked_class() -> None:
    with pytest.warns(DeprecationWarning, match="use MaskedLanguagesDataModule"):
        module = LanguagesDataModule(target="masked", mask_prob=0.3)
    assert type(module) is MaskedLanguagesDataModule
    assert (module.max_seq_len, module.mask_prob) == (64, 0.3)


# errors


@pytest.mark.parametrize(
    ("texts", "target", "message"),
    [
        (rows(("a", "x"), ("", "y"), ("b", "x"), ("", "y")), "class", "are all 'x'"),
        (rows(("a", 1), ("", 2), ("b", 1), ("", 3)), "number", "are all 1"),
    ],
)
def test_rows_left_out_are_reported_before_an_error(
    texts: Any, target: str, message: str, write: Callable[..., str]
) -> None:
    train = write(texts)
    module = LabelledTextFilesDataModule(train, train_copy(train), target=target)
    with (
        pytest.warns(UserWarning, match=r"^train: 2 of 4 rows left out: no text \(first: .*train.jsonl, line 2\)"),
        pytest.raises(DataError, match=message),
    ):
        module.prepare_data()


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (rows(("a", "x"), ("b", None)), {}, r"train.jsonl, line 2: the label in the column 'label' .* is missing"),
        (rows(("a", "x"), ("b", "")), {}, r"line 2: the label in .*\(label_column\) is missing"),
        (rows(("a", "x"), ("b", "x")), {}, "labels in the column 'label' .* are all 'x' .* two classes"),
        (rows(("a", "x"), ("b", ["x"])), {}, "line 2: .* must contain classes .*not a list"),
        (rows(("a", 1.5)), {}, r"line 1: .*not a number \(1.5\); to predict numbers, use --task=regression"),
        (rows(("a", 1)), {"label_column": "lable"}, "line 1: no column 'lable'; label_column must .*mean 'label'"),
        (rows(("a", 1)), {"text_column": "body"}, "line 1: no column 'body'; text_column must be one of: text, label"),
        (rows((3, 1)), {}, "line 1: 'text' must be text, got a whole number"),  # type: ignore[arg-type]
        (rows(("", 1)), {}, "the train data is empty"),
        ([], {}, "train.jsonl: no rows"),
        (
            rows(("a", 2)),
            {"label_names": ["x", "y"]},
            "line 1: the label 2 is out of range: .* names for 0 to 1$",
        ),
        (
            rows(("a", "z")),
            {"label_names": ["x", "y"]},
            "line 1: the label 'z' is not in label_names .known: x, y",
        ),
        (
            rows(*((f"text {number}", f"answer {number}") for number in range(150))),
            {},
            "'label' .* has 150 different labels among 150 .* list the classes in label_names; .* --task=regression",
        ),
        (
            rows(*((f"text {number}", number // 5) for number in range(6000))),
            {},
            "has 1,200 different labels among 6,000 in the training data",
        ),
        (rows(("a", "many")), {"target": "number"}, "line 1: 'label' must be a finite number .*, got 'many'"),
        (rows(("a", True)), {"target": "number"}, "line 1: 'label' must be a finite number .*, got True"),
        (rows(("a", 1e300)), {"target": "number"}, "line 1: 'label' must be a finite number .*, got 1e[+]300"),
        (rows(("a", 3), ("b", 3), ("c", None)), {"target": "number"}, "column 'label' of the training data are all 3"),
        (rows(("a", None), ("b", "")), {"target": "number"}, "column 'label' of the training data are all missing"),
        ([{"tokens": ["a", "b"], "label": ["x"]}], {"target": "token"}, "line 1: 1 labels in 'label' for 2 words"),
        ([{"tokens": "a b", "label": ["x"]}], {"target": "token"}, "line 1: 'tokens' must be a list, got text"),
        ([{"tokens": ["a", ""], "label": ["x", "y"]}], {"target": "token"}, "'tokens' must list words, got ''"),
        (
            [{"tokens": ["a"], "label": [None]}],
            {"target": "token"},
            "the labels .* of the training data are all missing",
        ),
        (rows(("a", 1)), {"target": "token"}, "line 1: no column 'tokens'; tokens_column must be one of: text, label"),
        (
            rows(("abc", ["x", "y"])),
            {"target": "token", "tokens_column": None},
            "line 1: 2 labels in 'label' for 3 characters",
        ),
    ],
)
def test_invalid_rows_are_refused(
    data: list[dict[str, Any]], options: dict[str, Any], message: str, write: Callable[..., str]
) -> None:
    module = LabelledTextFilesDataModule(write(data), **{"target": "class", **options})
    with pytest.raises(DataError, match=message) as caught:
        module.prepare_data()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_label_absent_from_training_is_refused(write: Callable[..., str]) -> None:
    train = write(rows(("a", "spam"), ("b", "ham")))
    for split in ("val", "test"):
        other = write(rows(("c", "ham"), ("d", "spm")), f"{split}.jsonl")
        module = LabelledTextFilesDataModule(train, **{f"{split}_files": other}, target="class")
        with pytest.raises(DataError, match=rf"{split}.jsonl, line 2: the label 'spm' .* training data .*'spam'"):
            module.prepare_data()


def test_many_classes_with_examples_or_names_are_accepted(write: Callable[..., str]) -> None:
    pairs = [(f"text {number}", number % 151) for number in range(604)]
    train = write(rows(*pairs))
    assert LabelledTextFilesDataModule(train, target="class").num_classes == 151
    few = write(rows(*pairs[:151]), "few.jsonl")
    names = [str(number) for number in range(151)]
    assert LabelledTextFilesDataModule(few, target="class", label_names=names).num_classes == 151


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"target": "clas"},
            r"target=clas: .* has no such labels \(it has target=class or number or token\)$",
        ),
        (
            {"target": "class", "label_column": ["a", "a"]},
            r"label_column=\['a', 'a'\]: must name different columns",
        ),
        (
            {"target": "token", "label_column": ["a", "b"]},
            r"label_column=\['a', 'b'\]: must name one column with target=token",
        ),
        (
            {"target": "number", "label_separator": ","},
            "label_separator=',': has no effect with target=number",
        ),
        ({"target": "number", "label_column": ["a", "a"]}, "must name one or several different columns"),
        ({"target": "number", "label_column": []}, "must name one or several different columns"),
        ({"target": "class", "label_column": "text"}, "label_column=text: is the column of the text"),
        ({"target": "class", "label_names": ["a"]}, "label_names=.* at least two different names"),
        ({"target": "class", "label_names": ["a", "b", "a"]}, "label_names=.* at least two different names"),
        ({"truncation_side": "middle"}, "truncation_side='middle' must be 'left' or 'right'"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str, write: Callable[..., str]) -> None:
    with pytest.raises(UserError, match=message) as caught:
        LabelledTextFilesDataModule(write(rows(("a", 0))), **options)
    assert "\n" not in str(caught.value)


def test_data_without_labels_is_refused(tmp_path: Path) -> None:
    for make in (PythonDocsDataModule, WikiTextDataModule):
        with pytest.raises(
            UserError, match=rf"target=class: {make.__name__} has no such labels \(it has target=masked\)$"
        ):
            make(target="class")
    (tmp_path / "train.txt").write_text("text")
    with pytest.raises(DataError, match=r"train\.txt: not a table \(columns are read from .jsonl"):
        LabelledTextFilesDataModule(str(tmp_path / "train.txt"), target="class").prepare_data()
    with pytest.raises(DataError, match=r"no file with labels \(\.jsonl"):
        LabelledHubTextDataModule(str(tmp_path), target="class").prepare_data()


def test_label_columns_are_parsed() -> None:
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(LabelledTextFilesDataModule, "data")
    arguments = ["--data.train_files=a.csv", "--data.target=number", "--data.label_column=[a,b]"]
    assert parser.parse_args(arguments).data.label_column == ["a", "b"]
    assert parser.parse_args([*arguments, "--data.label_column=c"]).data.label_column == "c"
    assert parser.parse_args([*arguments, "--data.label_names=[neg,pos]"]).data.label_names == ["neg", "pos"]


# embedded data


@pytest.mark.slow
def test_languages() -> None:
    module = LanguagesDataModule()
    assert (module.max_seq_len, module.num_classes) == (64, 32)
    assert {"English", "Chinese", "Swahili"} < set(module.label_names)
    assert min(module.class_counts) > 100
    module.setup()
    sizes = {split: len(dataset) for split, dataset in module.split_datasets.items()}
    assert 12_000 < sum(sizes.values()) < 17_000
    assert 0.75 < sizes["train"] / sum(sizes.values()) < 0.85
    batch = next(iter(module.train_dataloader()))
    assert batch["input_ids"].shape == (64, 64)
    assert batch["labels"].shape == (64,)


@pytest.mark.slow
def test_names_are_unique_across_texts_and_languages() -> None:
    texts = list(language_texts())
    assert texts == list(language_texts())
    languages: dict[str, str] = {}
    for _, text, language in texts:
        for name in text.split(", "):
            assert name.casefold() not in languages
            languages[name.casefold()] = language
    expected = {"donnerstag": "German", "giovedì": "Italian", "木曜日": "Japanese", "no such name": None}
    assert {name: languages.get(name) for name in expected} == expected


@pytest.mark.slow
def test_python_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_code, "TOTAL_CHARACTERS", python_code.TOTAL_CHARACTERS // 4)
    module = PythonCodeDataModule()
    assert module.label_names == ["space", "comment", "string", "number", "operator", "keyword", "builtin", "name"]
    assert 300_000 < sum(module.class_counts) < 700_000
    assert min(module.class_counts) > 1_000
    module.setup()
    assert set(module.split_datasets) == {"train", "validation", "test"}
    batch = next(iter(module.train_dataloader()))
    assert batch["input_ids"].shape == batch["labels"].shape == (64, 128)
    assert ((batch["labels"] == IGNORED) == (batch["attention_mask"] == 0)).all()
    classes = classes_by_character(examples(module))
    space, comment, string, number, operator, *words = range(8)
    assert operator in classes["@"] <= {comment, string, operator}
    assert comment in classes["#"] <= {comment, string}
    assert classes["e"] >= {comment, string, *words}
    assert number in classes["7"] <= {comment, string, number, words[2]}
    assert {character for character, found in classes.items() if space in found} <= {" ", "\n", "\t", "\f", "\\"}


def classes_by_character(labelled: list[tuple[str, Any]]) -> dict[str, set[int]]:
    """Classes of each character in ASCII texts, which have one byte per character."""
    classes: dict[str, set[int]] = {}
    for text, labels in labelled:
        if text.isascii():
            for character, label in zip(text, labels.tolist(), strict=False):
                classes.setdefault(character, set()).add(label)
    return classes


def test_lexical_classes_of_code(tmp_path: Path) -> None:
    code = 'def é(x):\n    return len(x) + 0x1F  # é\n\ns = f\'a{x}\' \\\n    """b\nc"""\n'
    (tmp_path / "a.py").write_text(code, encoding="utf-8")
    text, classes = classify(tmp_path / "a.py")
    assert text == code
    runs = [
        ("".join(c for c, _ in run), kind) for kind, run in groupby(zip(text, classes, strict=True), lambda x: x[1])
    ]
    found = [run for run in runs if run[1] != "space"]
    first_line = [("def", "keyword"), ("é", "name"), ("(", "operator"), ("x", "name"), ("):", "operator")]
    second_line = [("return", "keyword"), ("len", "builtin"), ("(", "operator"), ("x", "name"), (")", "operator")]
    second_line += [("+", "operator"), ("0x1F", "number"), ("# é", "comment")]
    assert found[:13] == first_line + second_line
    assert found[13:15] == [("s", "name"), ("=", "operator")]
    assert found[-1] == ('"""b\nc"""', "string")
    assert dict(found)["f'a{x}'" if ("f'a{x}'", "string") in found else "f'a"] == "string"


def test_generated_texts_for_masked_language_modelling() -> None:
    module = MaskedLanguagesDataModule(mask_words=False, batch_size=4)
    module.setup()
    batch = next(iter(module.train_dataloader()))
    assert batch["labels"].shape == (4, 64)
    assert 0 < (batch["labels"] != IGNORED).float().mean() < 0.4
    with pytest.raises(UserError, match=r"it has target=token\)$"):
        PythonCodeDataModule(target="class")


# real data


def counted_labels(path: str) -> Counter[str]:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return Counter(str(json.loads(line)["label"]) for line in file)


def test_real_data_with_validation_file() -> None:
    files = [str(sample_data(f"sst2/{name}.jsonl.xz")) for name in ("train", "dev")]
    module = LabelledTextFilesDataModule(*files, target="class")
    assert module.label_names == ["0", "1"]
    assert dict(zip(module.label_names, module.class_counts, strict=True)) == counted_labels(files[0])
    module.setup()
    assert {split: len(dataset) for split, dataset in module.split_datasets.items()} == {
        "train": 6920,
        "validation": 872,
    }


@pytest.mark.parametrize(("name", "num_classes", "size"), [("banking77", 77, 10003), ("sms-spam", 2, 4480)])
def test_real_data_with_held_out_validation(name: str, num_classes: int, size: int) -> None:
    file = str(sample_data(f"{name}/train.jsonl.xz"))
    module = LabelledTextFilesDataModule(file, target="class")
    assert module.num_classes == num_classes
    module.setup()
    train, validation = (module.split_datasets[split] for split in ("train", "validation"))
    assert sum(module.class_counts) == len(train)
    assert len(train) + len(validation) == size
    assert len(validation) == pytest.approx(0.05 * size, rel=0.1)
    labels = np.concatenate([dataset.documents.labels for dataset in (train, validation)])
    assert Counter(module.label_names[label] for label in labels) == counted_labels(file)


def test_several_files_per_split() -> None:
    files = {
        split: [str(sample_data(f"clinc150/{part}.jsonl.xz")) for part in (split, f"oos_{split}")]
        for split in ("train", "val")
    }
    module = LabelledTextFilesDataModule(files["train"], files["val"], target="class")
    assert module.num_classes == 151
    assert set(module.class_counts) == {100}
    folder = LabelledHubTextDataModule(str(sample_data("clinc150")), target="class")
    assert folder.class_counts == module.class_counts
    folder.setup()
    assert len(folder.split_datasets["validation"]) == 3100
