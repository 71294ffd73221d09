"""Invalid texts and damaged caches, end to end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.text.data import (
    HubTextDataModule,
    LabelledHubTextDataModule,
    LabelledTextFilesDataModule,
    TextFilesDataModule,
)
from perceiver_plugins.text.fill_mask import MaskFiller
from perceiver_plugins.text.model import LanguageModel
from perceiver_plugins.text.samples import FillMaskSamples


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))


def table(path: Path, rows: list[str]) -> str:
    path.write_text("\n".join(["text,label", *rows]))
    return str(path)


FILE_MODULES = [TextFilesDataModule, LabelledTextFilesDataModule]

ROWS = [f"text number {n},{'pos' if n % 2 else 'neg'}" for n in range(20)]


@pytest.mark.parametrize("module", [HubTextDataModule, LabelledHubTextDataModule, *FILE_MODULES])
def test_unquoted_comma_is_refused(tmp_path: Path, module: Any) -> None:
    (tmp_path / "data").mkdir()
    file = table(tmp_path / "data" / "train.csv", [*ROWS[:6], "text, and more,pos"])
    data = module(file if module in FILE_MODULES else str(tmp_path / "data"))
    with pytest.raises(DataError, match=r"train\.csv, line 8: 3 values, more than the 2 columns"):
        data.prepare_data()


@pytest.mark.parametrize("module", FILE_MODULES)
def test_rows_without_text_are_reported_on_every_use(tmp_path: Path, module: Any) -> None:
    file = table(tmp_path / "train.csv", [*ROWS, ",pos"])
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"train: 1 of 21 rows left out: no text \(first: .*line 22\)"):
            module(file).prepare_data()


def test_similar_labels_are_reported(tmp_path: Path) -> None:
    file = table(tmp_path / "train.csv", [*ROWS, "another,Pos"])
    with pytest.warns(
        UserWarning, match=r"differ only by white space, case or Unicode form.* 'pos' \(10\), 'Pos' \(1\)"
    ):
        assert LabelledTextFilesDataModule(file, target="class").label_names == ["Pos", "neg", "pos"]


def test_delimiter_of_files(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text;label\n" + "\n".join(row.replace(",", ";") for row in ROWS))
    with pytest.raises(DataError, match="delimiter=';' reads the header as 2 columns"):
        LabelledTextFilesDataModule(str(tmp_path / "train.csv"), target="class").prepare_data()
    for data in (
        LabelledTextFilesDataModule(str(tmp_path / "train.csv"), target="class", delimiter=";"),
        LabelledHubTextDataModule(str(tmp_path), target="class", delimiter=";"),
    ):
        assert data.label_names == ["neg", "pos"]


@pytest.mark.parametrize("module", FILE_MODULES)
def test_damaged_cache_is_prepared_again(tmp_path: Path, module: Any) -> None:
    file = table(tmp_path / "train.csv", ROWS)
    first = module(file)
    first.prepare_data()
    tokens = first.folder / "train" / "input_ids.npy"
    original = tokens.read_bytes()
    tokens.write_bytes(original[:-20])
    again = module(file)
    with pytest.warns(UserWarning, match="the prepared data is damaged .* and is prepared again"):
        again.prepare_data()
    again.setup()
    assert again.folder == first.folder
    assert tokens.read_bytes() == original


def test_cache_key_depends_on_content_not_on_time(tmp_path: Path) -> None:
    file = table(tmp_path / "train.csv", ROWS)
    before = LabelledTextFilesDataModule(file, target="class")
    assert before.label_names == ["neg", "pos"]
    times = os.stat(file)
    Path(file).write_text(Path(file).read_text().replace("pos", "POS"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert LabelledTextFilesDataModule(file, target="class").label_names == ["POS", "neg"]
    os.utime(file)  # a new modification time does not change the key
    assert LabelledTextFilesDataModule(file, target="class").folder != before.folder


def test_large_numbers_keep_precision(tmp_path: Path) -> None:
    file = table(tmp_path / "train.csv", [f"t{n},{1_700_000_000 + n}" for n in range(4)])
    copy = table(tmp_path / "val.csv", [f"t{n},{1_700_000_000 + n}" for n in range(4)])
    data = LabelledTextFilesDataModule(file, copy, target="number")
    assert data.target_std == pytest.approx([np.std(range(4))], rel=1e-6)
    data.setup()
    labels = next(iter(data.val_dataloader()))["labels"]
    assert (labels[:, 0] - 1_700_000_000).tolist() == [0, 1, 2, 3]


# Tokenizers without a pad token


@pytest.fixture
def tokenizer_without_pad() -> PreTrainedTokenizerFast:
    """Tokenizer without pad token, whose token 0, used for padding, is the mask token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(special_tokens=["<mask>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(["some words"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="<mask>")


def test_masks_are_filled_without_pad_token(tokenizer_without_pad, text_config, randomise) -> None:
    sizes = {"vocab_size": len(tokenizer_without_pad), "max_seq_len": 40}
    filler = MaskFiller(randomise(LanguageModel(text_config(sizes, sizes))), tokenizer_without_pad)
    texts = ["a <mask> b", "<mask> and <mask> in more words"]
    fillings = filler.fill(texts, top_k=1)
    assert [len(filling.masks) for filling in fillings] == [1, 2]
    expected = [filler.fill([text], top_k=1)[0] for text in texts]
    assert [filling.filled for filling in fillings] == [filling.filled for filling in expected]


def test_failed_samples_do_not_stop_the_run() -> None:
    class Broken:
        sanity_checking = False
        datamodule = type("Data", (), {"tokenizer": object()})()

    samples = FillMaskSamples()
    with pytest.warns(UserWarning, match="samples of text left out"):
        samples.on_validation_batch_end(Broken(), None, None, {}, 0)  # type: ignore[arg-type]
    assert samples.samples == []


def test_rows_without_text_in_saved_data_set_are_reported(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a text", "", None, "another"] * 3}).save_to_disk(str(tmp_path / "saved"))
    with pytest.warns(UserWarning, match="train: 6 of 12 rows left out: no text"):
        HubTextDataModule(str(tmp_path / "saved")).prepare_data()
