"""Data sets of the hub, local folders and streaming."""

from __future__ import annotations

import gzip
import json
import threading
import time
import zipfile
from collections import Counter
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub.utils import get_session
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.demos.boring_classes import BoringModel
from sample_data import sample_data
from transformers import PerceiverTokenizer

from perceiver_plugins.sdk import hub as hub_access
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.text.data import (
    BookCorpusDataModule,
    Enwik8DataModule,
    HubTextDataModule,
    ImdbDataModule,
    TextDataModule,
    WikipediaDataModule,
    WikiTextDataModule,
)
from perceiver_plugins.text.data.chunks import Collator
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.data.masking import Masker
from perceiver_plugins.text.data.streaming import StreamedChunks, StreamLoader
from perceiver_registry.errors import UserError

TOKENIZER = PerceiverTokenizer()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    return path


def write(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": texts}), path)
        return
    data = (
        "\n".join(json.dumps({"text": text}) for text in texts).encode() if "json" in path.name else texts[0].encode()
    )
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def ready(module: TextDataModule) -> dict[str, str]:
    """Prepare a data module and decode the text of each split."""
    module.prepare_data()
    module.setup()
    return {
        split: bytes((dataset.tokens.input_ids.astype(int) - 6).tolist()).decode()
        for split, dataset in module.split_datasets.items()
    }


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00001.parquet", "validation-00000-of-00001.parquet", "test-00000-of-00001.parquet"),
        ("train.jsonl.gz", "dev.jsonl", "test.jsonl"),
        ("wiki.train.txt", "wiki.valid.txt", "wiki.test.txt"),
        ("train/a.txt", "val/0000.txt", "test/b.txt"),
        ("20231101.en/train/1.txt", "20231101.en/valid/1.txt", "20231101.en/test/1.txt"),
    ],
)
def test_files_are_assigned_to_splits_by_name(names: tuple[str, ...], folder: Path) -> None:
    for name, text in zip(names, ("for training", "for validation", "for test"), strict=True):
        write(folder / name, [text])
    (folder / "SOURCE.txt").write_text("where it is from")
    assert ready(WikipediaDataModule(str(folder))) == {
        "train": "for training",
        "validation": "for validation",
        "test": "for test",
    }


def test_files_without_split_in_name_are_for_training(folder: Path) -> None:
    write(folder / "one.txt", ["one " * 100])
    write(folder / "two.txt", ["two " * 100])
    texts = ready(HubTextDataModule(str(folder), val_fraction=0.2))
    assert texts["train"] == "one " * 80 + "two " * 80
    assert texts["validation"] == "one " * 20 + "two " * 20


@pytest.mark.parametrize("whole", [True, False])
def test_saved_data_set(whole: bool, folder: Path) -> None:
    train = datasets.Dataset.from_dict({"body": [f"{number:03d}" for number in range(100)], "label": [0] * 100})
    if whole:
        other = datasets.Dataset.from_dict({"body": ["abc"], "label": [1]})
        datasets.DatasetDict({"train": train, "test": other}).save_to_disk(folder)
    else:
        train.save_to_disk(folder)
    texts = ready(HubTextDataModule(str(folder), text_column="body", val_fraction=0.1))
    assert (len(texts["train"]), len(texts["validation"])) == (270, 30)
    assert texts.get("test") == ("abc" if whole else None)
    with pytest.raises(DataError, match="no column 'text'; text_column must be one of: body, label"):
        ready(HubTextDataModule(str(folder)))
    with pytest.raises(DataError, match="column 'label' must be text, got int64"):
        ready(HubTextDataModule(str(folder), text_column="label"))
    with pytest.raises(DataError, match="no split 'extra'"):
        ready(HubTextDataModule(str(folder), train_split="extra", text_column="body"))


def test_imdb_uses_unlabelled_reviews_for_training(folder: Path) -> None:
    for split in ("train", "unsupervised", "test"):
        write(folder / "plain_text" / f"{split}-00000-of-00001.parquet", [f"{split} review"])
    texts = ready(ImdbDataModule(str(folder)))
    assert texts == {
        "train": "train reviewunsupervised review",
        "validation": "test review",
        "test": "test review",
    }


def test_missing_validation_split_is_held_out_of_training(folder: Path) -> None:
    write(folder / "train.jsonl", [f"{number:02d}" for number in range(40)])
    texts = ready(ImdbDataModule(str(folder), val_fraction=0.1))
    assert (len(texts["train"]), len(texts["validation"])) == (72, 8)


@pytest.mark.parametrize("kind", ["file", "zip", "folder"])
def test_enwik8(kind: str, folder: Path) -> None:
    text = "".join(f"é{number:04d} " for number in range(1000))
    data = text.encode() + "é".encode()[:1]  # cut within a character, as the first 100 MB may be
    if kind == "zip":
        with zipfile.ZipFile(folder / "enwik8.zip", "w") as archive:
            archive.writestr("enwik8", data)
    else:
        (folder / "enwik8").write_bytes(data)
    path = {"file": folder / "enwik8", "zip": folder / "enwik8.zip", "folder": folder}[kind]
    texts = ready(Enwik8DataModule(str(path)))
    assert texts["train"] + texts["validation"] + texts["test"] == text
    for split, share in (("train", 0.9), ("validation", 0.05), ("test", 0.05)):
        assert len(texts[split].encode()) == pytest.approx(share * len(data), abs=4)


def test_real_text() -> None:
    source = sample_data("tinyshakespeare")
    texts = ready(BookCorpusDataModule(str(source), val_fraction=0.05))
    assert len(texts["train"]) > 10 * len(texts["validation"]) > 100_000


def test_real_text_without_training_split() -> None:
    source = sample_data("wikitext-2")
    with pytest.raises(DataError, match="no file or folder name contains the split 'train'"):
        ready(WikiTextDataModule(str(source)))
    texts = ready(WikiTextDataModule(str(source), train_split="validation", val_split="test"))
    assert " = Homarus gammarus = " in texts["train"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(HubTextDataModule, "./nowhere"), "dataset=./nowhere: not a folder"),
        (partial(Enwik8DataModule, "./nowhere"), "neither the file enwik8 nor enwik8.zip"),
        (
            partial(HubTextDataModule, "a/b", streaming=True, static_masking=True),
            "static_masking: not available with streaming",
        ),
        (partial(HubTextDataModule, "a/b", streaming=True, random_train_shift=True), "random_train_shift: not avail"),
        (partial(HubTextDataModule, "a/b", val_fraction=0.0), "val_fraction=0.0"),
        (partial(HubTextDataModule, "a/b", shuffle_buffer=0), "shuffle_buffer=0"),
    ],
)
def test_invalid_options_are_refused(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_unreachable_hub_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the Hub\nand a long story")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        DataError, match=r"'a/b', subset 'c' could not be loaded .*: Couldn't reach the Hub \("
    ) as caught:
        HubTextDataModule("a/b", "c").prepare_data()
    assert "\n" not in str(caught.value)


def test_offline_hub_fails_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_access, "reachable", lambda: False)
    started = time.monotonic()
    with pytest.raises(DataError, match="'perceiver/no-such-data-set' could not be loaded"):
        HubTextDataModule("perceiver/no-such-data-set").prepare_data()
    with pytest.raises(UserError, match=r"^tokenizer: 'perceiver/no-such-tokenizer' could not be loaded"):
        _ = HubTextDataModule("a/b", tokenizer="perceiver/no-such-tokenizer").tokenizer
    assert time.monotonic() - started < 10
    assert not datasets.config.HF_HUB_OFFLINE


def test_offline_mode_ends_with_context(monkeypatch: pytest.MonkeyPatch) -> None:
    server = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(hub_access, "reachable", lambda: False)
    try:
        assert get_session().get(url).status_code == 200
        with hub_access.hub(), pytest.raises(ConnectionError, match="offline mode"):
            get_session().get(url)
        assert get_session().get(url).status_code == 200
    finally:
        server.shutdown()
        server.server_close()


def test_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, subset: str | None, split: str, **_: Any) -> datasets.Dataset:
        requests.append((name, subset, split))
        return datasets.Dataset.from_dict({"title": ["t"], "text": [f"from {split}"]})

    requests: list[tuple[str, str | None, str]] = []
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_, **__: ["train", "validation", "test"])
    texts = ready(WikiTextDataModule())
    assert texts == {"train": "from train", "validation": "from validation", "test": "from test"}
    assert {(name, subset) for name, subset, _ in requests} == {("Salesforce/wikitext", "wikitext-103-raw-v1")}


# streaming


def stream(documents: int, shards: int, **options: Any) -> StreamedChunks:
    source = datasets.Dataset.from_dict({"text": [f"{number:04d}" for number in range(documents)]})
    masker = Masker(TOKENIZER.mask_token_id, TOKENIZER.all_special_ids, len(TOKENIZER))
    values = {"max_seq_len": 4, "shuffle_buffer": 7, **options}
    return StreamedChunks(
        source.to_iterable_dataset(num_shards=shards), "text", DocumentEncoder(TOKENIZER), masker, Collator(0), **values
    )


@pytest.mark.parametrize(("parts", "shards"), [(1, 1), (2, 1), (2, 3), (6, 3), (6, 6), (6, 13)])
def test_each_document_is_streamed_to_one_part(parts: int, shards: int) -> None:
    chunks = stream(50, shards, seed=3)
    passes = [[list(chunks.documents(epoch, part, parts)) for part in range(parts)] for epoch in range(2)]
    for each in passes:
        assert sorted(text for part in each for text in part) == [f"{number:04d}" for number in range(50)]
    assert passes[0] != passes[1]
    assert passes[0] == [list(stream(50, shards, seed=3).documents(0, part, parts)) for part in range(parts)]


def originals(batch: dict[str, torch.Tensor]) -> list[str]:
    """Decode the texts of a batch as they were before masking."""
    tokens = torch.where(batch["labels"] == IGNORED, batch["input_ids"], batch["labels"]) - 6
    return [bytes(row[row >= 0].tolist()).decode() for row in tokens]


@pytest.mark.parametrize(("workers", "shards"), [(0, 4), (2, 1), (2, 4)])
def test_ranks_and_workers_share_documents(workers: int, shards: int) -> None:
    seen: Counter[str] = Counter()
    for rank in range(2):
        chunks = stream(24, shards, batch_size=2, rank=rank, num_replicas=2)
        loader = StreamLoader(chunks, lambda: 0, num_workers=workers)
        batches = iter(loader)
        seen.update(text for _ in range(6) for text in originals(next(batches)))
    assert seen == Counter(f"{number:04d}" for number in range(24))


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "starts"), [(0, (1, 16)), (2, (5, 16))])
def test_stream_resumes_exactly(workers: int, starts: tuple[int, ...]) -> None:
    def take(start: int, count: int) -> list[list[str]]:
        chunks = stream(30, 1, batch_size=2, truncate=True)
        batches = iter(StreamLoader(chunks, lambda: start, num_workers=workers))
        return [originals(next(batches)) for _ in range(count)]

    uninterrupted = take(0, 24)  # more than one pass
    for start in starts:
        assert take(start, 24 - start) == uninterrupted[start:]


def test_too_few_documents_for_workers_are_refused() -> None:
    chunks = stream(1, 1)
    with pytest.raises(DataError, match="streaming: too few documents for 2 processes"):
        next(chunks.chunks(1, 2))


class RecordingModel(BoringModel):
    """Records the texts of training and validation batches."""

    def __init__(self) -> None:
        super().__init__()
        self.trained: list[list[str]] = []
        self.validated: set[str] = set()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.trained.append(self.texts(batch))
        return self.layer.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated.update(self.texts(batch))

    @staticmethod
    def texts(batch: dict[str, torch.Tensor]) -> list[str]:
        return originals(batch)


class SaveEachStep(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def fit(
    module: HubTextDataModule, callbacks: list[Callback], ckpt_path: Path | None = None, **options: Any
) -> RecordingModel:
    model = RecordingModel()
    trainer = Trainer(
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(model, module, ckpt_path=ckpt_path)
    return model


def test_streamed_training_resumes_exactly(folder: Path, tmp_path: Path) -> None:
    documents = [f"{number:04d}" for number in range(60)]
    write(folder / "train-1.jsonl", documents[:30])
    write(folder / "train-2.jsonl", documents[30:])

    def module() -> HubTextDataModule:
        return HubTextDataModule(
            str(folder), streaming=True, stream_val_docs=8, max_seq_len=4, batch_size=4, shuffle_buffer=20
        )

    options = {"max_steps": 20, "val_check_interval": 5}
    uninterrupted = fit(module(), [SaveEachStep(tmp_path)], **options)
    assert uninterrupted.validated == set(documents[:8])
    first_pass = [text for batch in uninterrupted.trained[:13] for text in batch]
    assert sorted(first_pass) == documents[8:]
    for step in (3, 5, 13):
        assert fit(module(), [], tmp_path / f"{step}.ckpt", **options).trained == uninterrupted.trained[step:]
    with pytest.raises(UserError, match=r"streaming: has no epochs \(pass trainer\.max_steps"):
        fit(module(), [], max_epochs=1)


def test_holding_out_whole_stream_is_refused(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    data = HubTextDataModule(str(tmp_path), streaming=True, stream_val_docs=3)
    with pytest.raises(DataError, match="stream_val_docs=3: would hold out all 2 documents"):
        data.setup()
