"""Data modules: examples, batches, splits, cache."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import datasets
import jsonargparse
import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.demos.boring_classes import BoringModel
from transformers import PerceiverTokenizer, PreTrainedTokenizerFast

from perceiver_plugins.sdk.data.files import Piece
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.text import data as data_modules
from perceiver_plugins.text.data import PythonDocsDataModule, TextDataModule, TextFilesDataModule
from perceiver_plugins.text.data.chunks import Collator, MaskedChunks
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.data.masking import Masker
from perceiver_plugins.text.data.prepared import Tokens, prepare, split_documents, write_documents
from perceiver_plugins.text.tokenizers import deserialize_tokenizer
from perceiver_registry.errors import UserError

TOKENIZER = PerceiverTokenizer()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Text file of numbered words, so that any piece of it can be located."""
    path = tmp_path / "corpus.txt"
    path.write_text(" ".join(f"é{number:05d}" for number in range(2000)))
    return path


def tokens_of(text: str) -> Tokens:
    encoded = DocumentEncoder(TOKENIZER)({"text": [text]})
    return Tokens(encoded["input_ids"][0], encoded["word_parts"][0])


def chunks(text: str, side: Literal["left", "right"] = "right", **options: Any) -> MaskedChunks:
    masker = Masker(TOKENIZER.mask_token_id, TOKENIZER.all_special_ids, len(TOKENIZER))
    return MaskedChunks(tokens_of(text), masker, Collator(0, side), **options)


def original(example: dict[str, torch.Tensor]) -> bytes:
    """Decode the text of an example as it was before masking."""
    input_ids, labels = example["input_ids"], example["labels"]
    return bytes((torch.where(labels == IGNORED, input_ids, labels) - 6).tolist())


def text_of(module: TextDataModule, split: str) -> str:
    tokens = module.split_datasets[split].tokens.input_ids
    return bytes((tokens.astype(int) - 6).tolist()).decode()


def batches(loader: Any) -> list[dict[str, torch.Tensor]]:
    return list(loader)


def assert_same(one: list[dict[str, torch.Tensor]], two: list[dict[str, torch.Tensor]]) -> None:
    assert len(one) == len(two)
    for left, right in zip(one, two, strict=True):
        assert all(torch.equal(left[name], right[name]) for name in left)


# examples


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, [1]), (9, [9]), (10, [10]), (13, [10]), (14, [10, 4]), (20, [10, 10]), (24, [10, 10, 4])],
)
def test_lengths_of_chunks(length: int, expected: list[int]) -> None:
    dataset = chunks("x" * length, max_seq_len=10, min_seq_len=4)
    assert [len(dataset[index]["labels"]) for index in range(len(dataset))] == expected


def test_chunks_cover_text_in_order() -> None:
    text = "wörter und 日本語 " * 9
    dataset = chunks(text, max_seq_len=16)
    assert b"".join(original(dataset[index]) for index in range(len(dataset))).decode() == text


def test_dynamic_and_static_masks() -> None:
    text = "some words to mask " * 20
    dynamic, static = chunks(text, max_seq_len=64, seed=1), chunks(text, max_seq_len=64, seed=1, static=True)
    other = chunks(text, max_seq_len=64, seed=2, static=True)
    assert (dynamic[(0, 2)]["labels"] != dynamic[(1, 2)]["labels"]).any()
    assert (dynamic[(1, 2)]["labels"] == dynamic[(1, 2)]["labels"]).all()
    assert (static[(0, 2)]["labels"] == static[(1, 2)]["labels"]).all()
    assert (static[(0, 2)]["labels"] != other[(0, 2)]["labels"]).any()


def test_shift_is_less_than_a_chunk() -> None:
    text = "".join(f"{number:04d}" for number in range(100))
    dataset = chunks(text, max_seq_len=40, shift=True)
    shifts = set()
    for epoch in range(60):
        for index in range(len(dataset)):
            chunk = original(dataset[(epoch, index)]).decode()
            assert len(chunk) == 40
            start = text.index(chunk)
            assert index * 40 <= start < index * 40 + 40
            shifts.add(start - index * 40)
    assert len(shifts) > 30


def test_truncation_draws_lengths_within_bounds() -> None:
    dataset = chunks("x" * 100, max_seq_len=20, min_seq_len=15, truncate=True)
    lengths = [len(dataset[(epoch, 1)]["labels"]) for epoch in range(100)]
    assert set(lengths) == set(range(15, 21))


@pytest.mark.parametrize("side", ["left", "right"])
def test_collator_pads_to_longest_row(side: Literal["left", "right"]) -> None:
    input_ids, labels = np.array([[7, 8, 9], [6, 1, 1]]), np.array([[-100, 5, -100], [4, 1, 1]])
    inside = np.array([[True, True, True], [True, False, False]])
    batch = Collator(0, side)(input_ids, inside, labels)
    expected = {"left": [[7, 8, 9], [0, 0, 6]], "right": [[7, 8, 9], [6, 0, 0]]}[side]
    assert batch["input_ids"].tolist() == expected
    assert batch["attention_mask"].tolist() == [[1, 1, 1], {"left": [0, 0, 1], "right": [1, 0, 0]}[side]]
    assert batch["labels"].tolist() == [[-100, 5, -100], {"left": [-100, -100, 4], "right": [4, -100, -100]}[side]]
    assert {value.dtype for value in batch.values()} == {torch.int64}
    rows = Collator(0, side).inputs([np.array([7, 8, 9], np.uint16), np.array([6], np.uint16)])
    assert all(torch.equal(rows[name], batch[name]) for name in rows)


@pytest.mark.parametrize(
    ("options", "side"),
    [
        ({}, "left"),
        ({"static": True}, "right"),
        ({"shift": True}, "left"),
        ({"shift": True, "truncate": True}, "right"),
    ],
)
def test_batch_equals_single_examples(options: dict[str, Any], side: Literal["left", "right"]) -> None:
    dataset = chunks("wörter und 日本語, some more words " * 9, side, max_seq_len=16, min_seq_len=2, seed=4, **options)
    keys = [(3, index) for index in (5, 0, len(dataset) - 1, 9)]
    batch = dataset.__getitems__(keys)
    longest = batch["labels"].shape[1]
    for row, key in enumerate(keys):
        example = dataset[key]
        missing = longest - len(example["labels"])
        for name, fill in (("input_ids", 0), ("attention_mask", 0), ("labels", IGNORED)):
            padding = [fill] * missing
            values = example[name].tolist()
            assert batch[name][row].tolist() == (padding + values if side == "left" else values + padding)


# embedded text


@pytest.mark.slow
def test_python_docs() -> None:
    module = PythonDocsDataModule(max_seq_len=64)
    assert (module.vocab_size, module.max_seq_len, module.mask_words) == (262, 64, False)
    started = time.process_time()
    module.prepare_data()
    assert time.process_time() - started < 60
    module.setup("fit")
    sizes = {split: len(dataset.tokens.input_ids) for split, dataset in module.split_datasets.items()}
    assert 1_000_000 < sizes["train"] < 4_000_000
    assert sizes["validation"] > 20_000
    assert sizes["test"] > 20_000
    batch = next(iter(module.train_dataloader()))
    assert batch["input_ids"].shape == (32, 64)
    assert 0.1 < (batch["labels"] != IGNORED).float().mean() < 0.2
    assert "the" in text_of(module, "validation")
    again = PythonDocsDataModule(max_seq_len=32, cache_dir=os.environ["PERCEIVER_CACHE"])
    assert again.folder == module.folder


# user's files


@pytest.mark.slow
def test_batches_do_not_depend_on_workers_or_global_rng(corpus: Path) -> None:
    options = {"train_files": str(corpus), "max_seq_len": 100, "batch_size": 4, "seed": 5}
    single = TextFilesDataModule(num_workers=0, **options)
    single.setup()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    training = batches(single.train_dataloader())
    validation = batches(single.val_dataloader())
    assert torch.equal(torch.get_rng_state(), state)
    parallel = TextFilesDataModule(num_workers=2, random_train_truncation=False, **options)
    parallel.setup()
    torch.manual_seed(2)
    assert_same(training, batches(parallel.train_dataloader()))
    assert_same(validation, batches(parallel.val_dataloader()))
    assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(2).get_state())
    other = TextFilesDataModule(**{**options, "seed": 6})
    other.setup()
    assert not torch.equal(batches(other.train_dataloader())[0]["input_ids"], training[0]["input_ids"])


def test_seed_defaults_to_that_of_the_run(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TextFilesDataModule(str(corpus)).seed == 0
    monkeypatch.setenv("PL_GLOBAL_SEED", "17")
    assert TextFilesDataModule(str(corpus)).seed == 17
    assert TextFilesDataModule(str(corpus), seed=3).seed == 3


def test_end_of_single_text_is_held_out(corpus: Path) -> None:
    module = TextFilesDataModule(str(corpus), val_fraction=0.1)
    module.setup()
    train, validation = text_of(module, "train"), text_of(module, "validation")
    assert train + validation == corpus.read_text()
    assert len(validation) == pytest.approx(0.1 * len(corpus.read_text()), rel=0.05)
    assert validation.startswith("é")


def test_whole_documents_are_held_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"body": f"<{number:03d}>"}) for number in range(200)))
    module = TextFilesDataModule(str(path), text_column="body", val_fraction=0.1)
    module.setup()
    documents = [text_of(module, split)[1:-1].split("><") for split in ("train", "validation")]
    assert [len(part) for part in documents] == [180, 20]
    assert sorted(documents[0] + documents[1]) == [f"{number:03d}" for number in range(200)]


def test_documents_in_pieces_are_held_out_whole(tmp_path: Path) -> None:
    pieces = [Piece(f"{n}{part}", part == "a", part == "c") for n in range(100, 160) for part in "abc"]
    documents = write_documents(tmp_path / "a.arrow", pieces)
    train, validation = split_documents(documents, 0.1, tmp_path)
    assert len(validation) == 18
    texts = validation["text"][:]
    assert [text[3] for text in texts] == list("abc") * 6
    assert not {text[:3] for text in texts} & {text[:3] for text in train["text"][:]}


def test_files_of_all_splits(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.txt").write_text(f"{name} text " * 10)
    module = TextFilesDataModule(*(str(tmp_path / f"{name}.txt") for name in ("train", "val", "test")))
    module.setup()
    assert [text_of(module, split)[:4] for split in ("train", "validation", "test")] == ["trai", "val ", "test"]
    assert len(batches(module.test_dataloader())) == 1


def test_documents_end_with_eos_token(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in ("ab", "c")))
    module = TextFilesDataModule(str(path), add_eos_token=True)
    module.setup()
    tokens = module.split_datasets["train"].tokens.input_ids.tolist()
    assert tokens.count(TOKENIZER.eos_token_id) == 1  # the last characters, "b" and "c", are held out
    assert tokens == [ord("a") + 6, TOKENIZER.eos_token_id]


@pytest.mark.slow
def test_prepared_data_does_not_depend_on_workers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"document {number} é"}) for number in range(300)))
    modules = [
        TextFilesDataModule(
            str(path), preproc_workers=workers, preproc_batch_size=20, cache_dir=str(tmp_path / f"{workers}")
        )
        for workers in (1, 2)
    ]
    for module in modules:
        module.setup()
    assert text_of(modules[0], "train") == text_of(modules[1], "train")


def test_cache_key_depends_on_content_and_options(corpus: Path) -> None:
    before = TextFilesDataModule(str(corpus))
    before.setup()
    corpus.write_text("other text " * 50)
    after = TextFilesDataModule(str(corpus))
    after.setup()
    assert text_of(after, "train").startswith("other")
    assert after.folder != before.folder
    assert TextFilesDataModule(str(corpus), mask_words=False).folder != after.folder
    assert TextFilesDataModule(str(corpus), max_seq_len=7, mask_prob=0.5).folder == after.folder


def test_description_is_plain_data(corpus: Path, tmp_path: Path) -> None:
    module = TextFilesDataModule(str(corpus), padding_side="left")
    torch.save(module.description(), tmp_path / "d.pt")
    loaded = torch.load(tmp_path / "d.pt", weights_only=True)
    assert (loaded["max_seq_len"], loaded["padding_side"]) == (256, "left")
    assert len(deserialize_tokenizer(loaded["tokenizer"])) == 262
    json.dumps(loaded)


def test_trainer_uses_data_module(corpus: Path) -> None:
    module = TextFilesDataModule(str(corpus), max_seq_len=50, batch_size=8)
    seen: list[torch.Tensor] = []

    class Model(BoringModel):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            seen.append(batch["input_ids"])
            return self.layer.weight.sum()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            assert set(batch) == {"input_ids", "attention_mask", "labels"}

    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Model(), module)
    size = len(module.split_datasets["train"])
    assert len(seen) == 2 * (size // 8)
    assert not torch.equal(seen[0], seen[len(seen) // 2])


# errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_prob": 0.0}, "mask_prob=0.0 must be more than 0"),
        ({"mask_prob": 1.5}, "mask_prob=1.5"),
        ({"max_seq_len": 0}, "max_seq_len=0 must be at least 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"valid_batch_size": 0}, "valid_batch_size=0"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"padding_side": "up"}, "padding_side='up'"),
        ({"random_train_truncation": True, "max_seq_len": 8}, "random_min_seq_len=16 must be at most max_seq_len=8"),
        ({"val_fraction": 1.0}, "val_fraction=1.0"),
        ({"val_files": "nowhere.txt"}, "val_files: file nowhere.txt not found"),
    ],
)
def test_invalid_options_are_refused(corpus: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        TextFilesDataModule(str(corpus), **options)
    assert "\n" not in str(caught.value)


def test_file_shared_by_splits_is_refused(corpus: Path) -> None:
    with pytest.raises(DataError, match=r"test_files: .*corpus\.txt is in train_files as well"):
        TextFilesDataModule(str(corpus), test_files=str(corpus.parent / "*.txt"))


def test_missing_splits_are_reported_on_use(corpus: Path, tmp_path: Path) -> None:
    module = TextFilesDataModule(str(corpus))
    module.setup()
    with pytest.raises(UserError, match=r"no test data \(name files with test_files"):
        module.test_dataloader()
    (tmp_path / "tiny.txt").write_text("x")
    tiny = TextFilesDataModule(str(tmp_path / "tiny.txt"))
    tiny.setup()
    with pytest.raises(UserError, match="no text for training"):
        tiny.train_dataloader()


def test_failed_preparation_leaves_no_files(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"abc\xff")
    module = TextFilesDataModule(str(tmp_path / "bad.txt"))
    with pytest.raises(DataError, match=r"bad\.txt: not UTF-8"):
        module.prepare_data()
    assert [path.suffix for path in module.folder.parent.iterdir()] == [".lock"]


def test_tokenizer_without_mask_token_is_refused(corpus: Path) -> None:
    from tokenizers import Tokenizer, models

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    module = TextFilesDataModule(str(corpus), tokenizer=tokenizer)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has no mask token"):
        module.prepare_data()


# cache


def start(folder: Path, seconds: float) -> tuple[multiprocessing.Process, Connection]:
    """Start a process that prepares a folder, and sends "loading" and "done"."""
    context = multiprocessing.get_context("fork")  # another start method would import everything again
    receiver, sender = context.Pipe(duplex=False)

    def load(work: Path) -> dict[str, datasets.Dataset]:
        sender.send("loading")
        time.sleep(seconds)
        return {"train": write_documents(work / "train.arrow", [Piece("some text")])}

    def run() -> None:
        prepare(folder, load, DocumentEncoder(TOKENIZER))
        sender.send("done")

    process = context.Process(target=run)
    process.start()
    sender.close()
    return process, receiver


def messages(receiver: Connection) -> list[str]:
    """All messages until the sender exits."""
    received = []
    with contextlib.suppress(EOFError):
        while True:
            received.append(receiver.recv())
    return received


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked")
def test_concurrent_and_killed_preparation(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "text" / "data"
    process, receiver = start(folder, 60)
    assert receiver.recv() == "loading"
    process.kill()
    process.join()
    assert not folder.exists()
    assert len(list(folder.parent.glob(".data.tmp-*"))) == 1  # temporary folder of the killed process

    concurrent = [start(folder, 0.5) for _ in range(2)]
    assert sorted(messages(receiver) for _, receiver in concurrent) == [["done"], ["loading", "done"]]
    for process, _ in concurrent:
        process.join()
    assert sorted(path.name for path in folder.parent.iterdir()) == [".data.lock", "data"]
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "train"]
    assert sorted(path.name for path in (folder / "train").iterdir()) == ["input_ids.npy", "word_parts.npy"]


def test_prepared_data_is_reused(tmp_path: Path) -> None:
    def load(work: Path) -> dict[str, datasets.Dataset]:
        calls.append(work)
        return {"train": write_documents(work / "a.arrow", [Piece("text")])}

    calls: list[Path] = []
    for _ in range(2):
        prepare(tmp_path / "data", load, DocumentEncoder(TOKENIZER))
    assert len(calls) == 1
    assert not calls[0].exists()


def test_unwritable_cache_is_refused(corpus: Path) -> None:
    with pytest.raises(DataError, match=r"the cache cannot be written .* cache_dir"):
        TextFilesDataModule(str(corpus), cache_dir=str(corpus)).prepare_data()


# options

ABSTRACT = ("DocumentDataModule", "TextDataModule", "LabelledTextDataModule")


@pytest.mark.parametrize("name", [name for name in data_modules.__all__ if name not in ABSTRACT])
def test_options_are_documented(name: str) -> None:
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(getattr(data_modules, name), "data")
    flags = {action.dest: action.help for action in parser._actions if action.dest.startswith("data.")}
    assert {"data.tokenizer", "data.max_seq_len", "data.target", "data.seed", "data.cache_dir"} <= set(flags)
    masked = issubclass(getattr(data_modules, name), TextDataModule)
    assert [f"data.{option}" in flags for option in ("mask_words", "mask_prob", "static_masking")] == [masked] * 3
    assert not masked or "data.label_column" not in flags
    assert "data.name" not in flags
    assert all(flags.values())


def test_labels_beyond_the_end_are_ignored():
    dataset = chunks("some text", max_seq_len=4)
    batch = dataset.__getitems__([1, len(dataset), len(dataset) + 5])
    assert (batch["labels"] != IGNORED).any(dim=1).tolist() == [True, False, False]
