"""Data modules of text for causal language models."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.demos.boring_classes import BoringModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PerceiverTokenizer, PreTrainedTokenizerFast

from perceiver_plugins.sdk.data.causal import WindowRule
from perceiver_plugins.sdk.data.files import Piece
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.tasks.resuming import check_stream
from perceiver_plugins.text.data import (
    CausalBookCorpusDataModule,
    CausalEnwik8DataModule,
    CausalHubTextDataModule,
    CausalImdbDataModule,
    CausalPythonDocsDataModule,
    CausalTextDataModule,
    CausalTextFilesDataModule,
    CausalWikipediaDataModule,
    CausalWikiTextDataModule,
)
from perceiver_plugins.text.data.causal import CausalEncoder, StreamedWindows, bytes_of_tokens, document_bounds
from perceiver_plugins.text.data.streaming import StreamLoader
from perceiver_plugins.text.tokenizer_training import TokenizerTraining
from perceiver_plugins.text.tokenizers import TokenizerError
from perceiver_registry.errors import UserError

TOKENIZER = PerceiverTokenizer()
BEGIN, END = TOKENIZER.bos_token_id, TOKENIZER.eos_token_id
RULE = WindowRule(23, 7, 3)
FLAGS = ("train_files", "val_files", "test_files")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    return path


def encode(*texts: str) -> list[int]:
    """Encode documents byte by byte."""
    return [token for text in texts for token in (BEGIN, *(byte + 6 for byte in text.encode()), END)]


def write_rows(path: Path, texts: list[str]) -> None:
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))


# Tokens


def test_documents_have_a_begin_and_an_end() -> None:
    encoder = CausalEncoder(TOKENIZER)
    texts, first, last = ["ab", "é", "", "", "d", ""], [1, 0, 1, 0, 1, 1], [0, 1, 1, 1, 1, 0]
    encoded = encoder({"text": texts, "first": list(map(bool, first)), "last": list(map(bool, last))})
    assert encoded["input_ids"][0].tolist() == [*encode("abé"), END, *encode("d"), BEGIN]
    assert encoded["num_bytes"][0].tolist() == [0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0]
    assert {name: str(arrays[0].dtype) for name, arrays in encoded.items()} == encoder.columns
    assert encoder({"text": ["", None]}) == {"input_ids": [], "num_bytes": []}


@pytest.mark.parametrize("kind", ["bpe", "unigram", "word"])
def test_tokens_of_trained_tokenizers_have_the_bytes_of_the_text(kind: str) -> None:
    texts = ["The fox,  isn't it? 😀👍🏽", "naïve café\u00a0№ 5, Straße", "日本語 中文\n", "[BOS] and [EOS]", "Ω" * 300]
    tokenizer = TokenizerTraining(kind, 400).train(Piece(text) for text in texts * 3)
    encoder = CausalEncoder(tokenizer)
    assert (encoder.prefix, encoder.suffix) == ([tokenizer.bos_token_id], [tokenizer.eos_token_id])
    encoded = encoder({"text": texts})
    ids, sizes = encoded["input_ids"][0], encoded["num_bytes"][0]
    bounds = [
        index
        for index, (token, size) in enumerate(zip(ids, sizes, strict=True))
        if token == encoder.begin_id and not size
    ]
    # a piece of a character may have no bytes; begins of documents alone have the token of begins
    documents = np.split(ids, bounds[1:])
    assert [document.tolist() for document in documents] == [
        [*encoder.prefix, *tokenizer(text, add_special_tokens=False)["input_ids"], *encoder.suffix] for text in texts
    ]
    assert [part.sum() for part in np.split(sizes, bounds[1:])] == [len(text.encode()) for text in texts]


def test_bytes_from_token_to_token() -> None:
    # tokens: "é" in two parts, " b" without its space, the end dropped
    spans = np.array([[0, 1], [0, 1], [2, 3], [3, 4]])
    assert bytes_of_tokens("é b日..", spans).tolist() == [0, 3, 1, 5]
    assert bytes_of_tokens("ab", np.zeros((0, 2), int)).tolist() == []


def fast_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    vocabulary = {token: index for index, token in enumerate(["a", "b", "<x>", "<y>", "[UNK]"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", **special)


def test_tokenizer_with_one_token_for_begin_and_end() -> None:
    for special in ({"bos_token": "<x>", "eos_token": "<x>"}, {"eos_token": "<x>"}):
        encoder = CausalEncoder(fast_tokenizer(**special))
        assert encoder({"text": ["a b", "b"]})["input_ids"][0].tolist() == [2, 0, 1, 2, 1]
        assert encoder.begin_id is None
    assert document_bounds(fast_tokenizer(bos_token="<y>", sep_token="<x>")) == (3, 2)


def test_tokenizer_without_end_is_refused() -> None:
    with pytest.raises(TokenizerError, match="neither an EOS nor a SEP token to end documents"):
        document_bounds(fast_tokenizer(bos_token="<x>"))


# Data modules


def text_files(folder: Path) -> tuple[CausalTextDataModule, dict[str, list[str]]]:
    texts = {"train": ["one " * 20, "two", "é"], "validation": ["three " * 9, "4"], "test": ["five"]}
    for split, rows in texts.items():
        write_rows(folder / f"{split}.jsonl", rows)
    paths: dict[str, Any] = {flag: str(folder / f"{split}.jsonl") for flag, split in zip(FLAGS, texts, strict=True)}
    return CausalTextFilesDataModule(max_seq_len=23, batch_size=3, **paths), texts


def hub_folder(module_type: Callable[..., CausalTextDataModule], **splits: str) -> Any:
    def make(folder: Path) -> tuple[CausalTextDataModule, dict[str, list[str]]]:
        texts = {"train": ["one " * 20, "two", "é"], "validation": ["three " * 9, "4"], "test": ["five"]}
        for split, rows in texts.items():
            write_rows(folder / f"{split}.jsonl", rows)
        return module_type(str(folder), max_seq_len=23, batch_size=3, **splits), texts

    return make


def wikitext(folder: Path) -> tuple[CausalTextDataModule, dict[str, list[str]]]:
    rows = [" = One = \n", " Text of one. \n", " = = Section = = \n", " = Two = \n", " Text of two. \n"]
    articles = ["".join(rows[:3]), "".join(rows[3:])]
    for split in ("train", "validation", "test"):
        write_rows(folder / f"{split}.jsonl", ["", *rows, ""])
    return CausalWikiTextDataModule(str(folder), max_seq_len=23, batch_size=3), dict.fromkeys(
        ("train", "validation", "test"), articles
    )


def enwik8(folder: Path) -> tuple[CausalTextDataModule, dict[str, list[str]]]:
    text = "".join(f"é{number:03d} " for number in range(200))
    (folder / "enwik8").write_text(text)
    data = text.encode()
    parts = [
        data[: len(data) * 18 // 20],
        data[len(data) * 18 // 20 : len(data) * 19 // 20],
        data[len(data) * 19 // 20 :],
    ]
    assert [part[:1] for part in parts] == ["é".encode()[:1]] * 3
    return CausalEnwik8DataModule(str(folder), max_seq_len=23, batch_size=3), {
        split: [part.decode()] for split, part in zip(("train", "validation", "test"), parts, strict=True)
    }


KINDS = {
    "text-files": text_files,
    "hub-text": hub_folder(CausalHubTextDataModule),
    "wikipedia": hub_folder(CausalWikipediaDataModule),
    "bookcorpus": hub_folder(CausalBookCorpusDataModule),
    "imdb": hub_folder(CausalImdbDataModule, train_split="train", val_split="validation"),
    "wikitext": wikitext,
    "enwik8": enwik8,
}


def scored(loader: Any) -> tuple[list[int], int]:
    """Return the labels of evaluation batches, sorted, and the number of their bytes."""
    batches = list(loader)
    labels = torch.cat([batch["labels"].reshape(-1) for batch in batches])
    return sorted(labels[labels != IGNORED].tolist()), sum(int(batch["num_units"].sum()) for batch in batches)


@pytest.mark.parametrize("kind", KINDS)
def test_each_byte_is_scored_once(kind: str, folder: Path) -> None:
    module, texts = KINDS[kind](folder)
    module.fit_windows(RULE, RULE.num_latents)
    module.prepare_data()
    module.setup()
    assert module.description()["target"] == "next"
    for split, documents in texts.items():
        assert module.split_datasets[split].sequence.input_ids.tolist() == encode(*documents)
    for split, loader in (("validation", module.val_dataloader()), ("test", module.test_dataloader())):
        expected = sorted(token for token in encode(*texts[split]) if token != BEGIN)
        assert scored(loader) == (expected, len("".join(texts[split]).encode()))
    train = encode(*texts["train"])
    for batch in module.train_dataloader():
        assert batch["labels"].shape[1] == 7
        for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
            assert labels[:-1] == [IGNORED if token == BEGIN else token for token in ids[-6:]]
            ring = bytes(train * 2)
            assert bytes(ids) in ring


@pytest.mark.slow
def test_python_docs() -> None:
    module = CausalPythonDocsDataModule(num_workers=0)
    module.fit_windows(WindowRule(512, 128, 64), 128)
    module.prepare_data()
    module.setup()
    ids = module.split_datasets["validation"].sequence.input_ids
    documents = int((ids == BEGIN).sum())
    assert documents == (ids == END).sum() > 20
    labels, num_bytes = scored(module.val_dataloader())
    assert num_bytes == len(ids) - 2 * documents > 50_000
    assert labels == sorted(ids[ids != BEGIN].tolist())
    batch = next(iter(module.train_dataloader()))
    assert (batch["input_ids"].shape, batch["labels"].shape) == ((32, 512), (32, 128))


def test_documents_without_text_are_reported(folder: Path) -> None:
    write_rows(folder / "train.jsonl", ["ab", "", "c"])
    write_rows(folder / "val.jsonl", ["de", ""])
    module: CausalTextDataModule = CausalTextFilesDataModule(str(folder / "train.jsonl"), str(folder / "val.jsonl"))
    with pytest.warns(UserWarning, match="train: 1 of 3 rows left out: no text"):
        module.prepare_data()
    module.setup()
    assert module.split_datasets["train"].sequence.input_ids.tolist() == encode("ab", "c")
    saved = datasets.Dataset.from_dict({"text": ["ab", "", None, "c"]})
    datasets.DatasetDict({"train": saved, "validation": saved}).save_to_disk(folder / "saved")
    module = CausalHubTextDataModule(str(folder / "saved"))
    with pytest.warns(UserWarning, match="train: 2 of 4 rows left out: no text"):
        module.prepare_data()
    module.setup()
    assert module.split_datasets["train"].sequence.input_ids.tolist() == encode("ab", "c")


def test_trained_tokenizer(folder: Path) -> None:
    words = random.Random(0).choices(["fox", "dog", "café", "the"], k=300)
    (folder / "a.txt").write_text(" ".join(words))
    module = CausalTextFilesDataModule(str(folder), tokenizer="train:word", val_fraction=0.2, max_seq_len=23)
    module.prepare_data()
    module.setup()
    labels, num_bytes = scored(module.val_dataloader())
    assert len(labels) < 100
    text = " ".join(words)
    assert num_bytes == pytest.approx(0.2 * len(text.encode()), rel=0.1)


def test_other_targets_and_their_options_are_refused(folder: Path) -> None:
    (folder / "a.txt").write_text("text")
    with pytest.raises(UserError, match="target=masked: CausalTextFilesDataModule has no such labels"):
        CausalTextFilesDataModule(str(folder), target="masked")
    with pytest.raises(TypeError, match="add_eos_token"):
        CausalTextFilesDataModule(str(folder), add_eos_token=True)
    with pytest.raises(UserError, match="streaming: not available, as the rows of WikiText are not documents"):
        CausalWikiTextDataModule(str(folder), streaming=True)


# Streams


def stream(documents: list[str], shards: int = 1, **options: Any) -> StreamedWindows:
    source = datasets.Dataset.from_dict({"text": documents}).to_iterable_dataset(num_shards=shards)
    values = {"max_seq_len": 23, "num_targets": 7, "shuffle_buffer": 5, **options}
    return StreamedWindows(source, "text", CausalEncoder(TOKENIZER), **values)


def test_streamed_windows_have_each_label_once() -> None:
    documents = [f"{number} " * (number % 9 + 1) for number in range(40)]
    windows = stream(documents, batch_size=3)
    tokens = encode(*(text for epoch in range(3) for text in windows.documents(epoch, 0, 1)))
    batches = [batch for batch, _ in zip(windows, range(20), strict=False)]
    for index, (ids, labels) in enumerate(
        row for batch in batches for row in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)
    ):
        assert ids == tokens[7 * index : 7 * index + 23]
        expected = tokens[7 * index + 17 : 7 * index + 24]
        assert labels == [IGNORED if token == BEGIN else token for token in expected]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_stream_resumes_exactly(workers: int) -> None:
    documents = [f"{number} " * (number % 9 + 1) for number in range(40)]

    def take(start: int, count: int) -> list[dict[str, torch.Tensor]]:
        batches = iter(StreamLoader(stream(documents, batch_size=2), lambda: start, num_workers=workers))
        return [next(batches) for _ in range(count)]

    uninterrupted = take(0, 40)  # more than one pass
    for start in (5, 36):
        assert_same(take(start, 40 - start), uninterrupted[start:])


def test_stream_of_another_model_is_not_resumed(folder: Path) -> None:
    write_rows(folder / "train.jsonl", ["text"] * 40)
    module = CausalHubTextDataModule(str(folder), streaming=True)
    module.fit_windows(RULE, 7)
    saved = module.loading_state()
    check_stream(saved, module.loading_state())
    module.fit_windows(WindowRule(23, 8, 3), 8)
    with pytest.raises(UserError, match=r"--model\.num_latents: 8, but the checkpoint was saved with 7"):
        check_stream(saved, module.loading_state())


def assert_same(one: list[dict[str, torch.Tensor]], two: list[dict[str, torch.Tensor]]) -> None:
    assert len(one) == len(two)
    for left, right in zip(one, two, strict=True):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)


# Resuming


class Recorder(BoringModel):
    """Records the training batches of a data module that is fitted to a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.trained: list[dict[str, torch.Tensor]] = []

    def setup(self, stage: str) -> None:
        self.trainer.datamodule.fit_windows(RULE, 7)  # type: ignore[attr-defined]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.trained.append(batch)
        return self.layer.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass


class SaveEachStep(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def fit(module: CausalTextDataModule, callbacks: list[Callback], ckpt_path: Path | None = None) -> Any:
    model = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        callbacks=callbacks,
        max_steps=20,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(model, module, ckpt_path=ckpt_path)
    return model.trained


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_training_resumes_exactly(workers: int, streaming: bool, folder: Path, tmp_path: Path) -> None:
    write_rows(folder / "train.jsonl", [f"{number} " * (number % 9 + 1) for number in range(40)])

    def module(num_workers: int) -> CausalHubTextDataModule:
        return CausalHubTextDataModule(
            str(folder),
            streaming=streaming,
            stream_val_docs=8,
            max_seq_len=23,
            batch_size=4,
            shuffle_buffer=20,
            num_workers=num_workers,
        )

    uninterrupted = fit(module(workers), [SaveEachStep(tmp_path)])
    assert len(uninterrupted) == 20
    for step in (3, 17):
        assert_same(fit(module(workers), [], tmp_path / f"{step}.ckpt"), uninterrupted[step:])
    if not streaming:
        assert_same(fit(module((workers + 1) % 3), []), uninterrupted)
