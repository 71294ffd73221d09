"""Tables with columns of texts and images: kinds, readers, missing values, and the model that they make up."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from perceiver_core import PerceiverConfig
from perceiver_plugins.classification.config import ClassificationDecoderConfig
from perceiver_plugins.composite import CompositeInputAdapter
from perceiver_plugins.image.data.module import IMAGENET_MEAN, IMAGENET_STD
from perceiver_plugins.image.data.transforms import ImageFormat
from perceiver_plugins.image.reading import ImageReader
from perceiver_plugins.table import TableEncoderConfig, TableFilesDataModule, TableInputAdapter, TableReader
from perceiver_plugins.table.embedded import adapter_of_kind, modality_names
from perceiver_plugins.text.tokenizers import load_tokenizer
from perceiver_registry import Registry, UserError, assemble, registry
from perceiver_registry.testing import adapter_checks

Write = Callable[[str, Sequence[dict[str, Any]]], str]

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
FILLERS = (
    "a small thing for the house",
    "made of old wood and glass",
    "that came in the mail today",
    "to use every day",
)


def save_image(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (11, 9)) -> str:
    """Write an image with noise around a colour."""
    path.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(abs(hash(path.name)) % 2**32).integers(-20, 21, (size[1], size[0], 3))
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)
    return f"{path.parent.name}/{path.name}"


def rows_of(folder: Path, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows whose label is in the text of half of them, and in the image of the others."""
    rng = random.Random(seed)
    rows = []
    for index in range(count):
        label = rng.choice(sorted(COLOURS))
        in_text = index % 2 == 0
        words = ("good fine" if label == "red" else "bad poor") if in_text else "odd plain"
        colour = (128, 128, 128) if in_text else COLOURS[label]
        photo = save_image(folder / "img" / f"{seed}-{index}.png", colour)
        text = f"{rng.choice(FILLERS)} {words} {rng.choice(FILLERS)}"
        rows.append({"size": rng.random(), "text": text, "photo": photo, "label": label})
    return rows


def refused(*args: Any, **options: Any) -> str:
    """Return the message of the error that the data module raises, in one line."""
    with pytest.raises(UserError) as caught:
        TableFilesDataModule(*args, target="class", **options).setup()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def data_of(*args: Any, **options: Any) -> TableFilesDataModule:
    data = TableFilesDataModule(*args, target="class", image_size=8, **options)
    data.setup()
    return data


def encoder_of(data: TableFilesDataModule, **options: Any) -> TableEncoderConfig:
    """Config of a small encoder for a data module."""
    sizes = {"num_cross_attention_heads": 1, "num_self_attention_heads": 2, "num_self_attention_layers_per_block": 1}
    return TableEncoderConfig(
        num_features=data.num_features,
        num_categories=data.num_categories,
        columns=data.column_inputs,
        num_input_channels=16,
        column_init_scale=0.2,
        **sizes,
        **options,
    )


# Kinds


def test_kinds_are_inferred_and_named_by_flags(write: Write, tmp_path: Path) -> None:
    file = write("t.csv", rows_of(tmp_path, 40))
    data = data_of(file)
    assert data.tables.kinds == {"text": "text", "photo": "image"}
    assert (data.num_features, data.num_categories) == (1, None)
    assert {name: part["adapter"] for name, part in (data.column_inputs or {}).items()} == {
        "text": "perceiver-zoo:text",
        "photo": "perceiver-zoo:image-stages",
    }
    assert data_of(file, text_columns=["photo"]).tables.kinds == {"text": "text", "photo": "text"}
    named = data_of(file, categorical_columns=["text"], feature_columns=["text", "size"])
    assert (named.tables.kinds, named.column_inputs) == ({"text": "category"}, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_columns": ["note"]}, "text_columns: 'note' is not a feature column"),
        ({"image_columns": ["photo"], "text_columns": ["photo"]}, "image_columns: 'photo' is in text_columns as well"),
        ({"tokenizer": "train:words"}, "tokenizer: must be train:auto"),
        ({"max_seq_len": 0}, "max_seq_len=0 must be at least 1"),
        ({"image_size": 0}, "image_size=0 must be at least 1"),
        ({"image_columns": ["size"]}, ": size: file "),
    ],
)
def test_invalid_flags(write: Write, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    assert message in refused(write("t.csv", rows_of(tmp_path, 24)), **options)


def test_unreadable_cells_are_reported_with_their_line(write: Write, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 24)
    (tmp_path / "img" / "broken.png").write_bytes(b"no image")
    for photo, problem in (
        ("img/0-33.png", "line 5: photo: file .*img/0-33.png not found .did you mean '0-3.png'"),
        ("img/broken.png", "line 5: photo: not an image"),
        ("img.png", "line 5: photo: file .*img.png not found"),
    ):
        changed = [row | ({"photo": photo} if index == 3 else {}) for index, row in enumerate(rows)]
        with pytest.raises(UserError, match=problem):
            data_of(write("t.csv", changed))
    changed = [row | ({"text": 3} if index == 3 else {}) for index, row in enumerate(rows)]
    assert "t.jsonl, line 4: 'text' must be text, got a whole number" in refused(
        write("t.jsonl", changed), text_columns=["text"]
    )
    empty = [row | {"text": ""} for row in rows]
    assert "the column 'text' has no text in the training rows" in refused(write("t.csv", empty), text_columns=["text"])


def test_names_of_modalities_are_identifiers() -> None:
    columns = ["review", "Größe in cm", "Größe_in_cm", "1st", "labels", "keys", "table", "class", ""]
    names = modality_names(columns)
    assert list(names) == columns
    assert len(set(names.values())) == len(columns)
    assert all(name.isidentifier() and name.isascii() for name in names.values())
    assert names["review"] == "review"
    assert {"labels", "keys", "table"}.isdisjoint(names.values())


# Batches


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_batches_have_the_tokens_and_pixels_of_the_cells(write: Write, tmp_path: Path, name: str) -> None:
    rows = rows_of(tmp_path, 24)
    rows[5] |= {"text": None, "photo": None}
    data = data_of(write(name, rows), val_files=write(f"v-{name}", rows[:2]), tokenizer="bytes")
    order = [7, 5, 2]
    batch = data.split_datasets["train"].batch(0, np.array(order))
    expected = load_tokenizer("bytes")(
        [rows[index]["text"] or "x" for index in order], add_special_tokens=False, padding=True, return_tensors="pt"
    )
    assert batch["text"]["missing"].tolist() == batch["photo"]["missing"].tolist() == [False, True, False]
    for index in (0, 2):
        assert torch.equal(batch["text"]["input_ids"][index], expected["input_ids"][index])
        assert torch.equal(batch["text"]["attention_mask"][index], expected["attention_mask"][index])
        image_format = ImageFormat((8, 8), 3, IMAGENET_MEAN, IMAGENET_STD)
        reader = ImageReader(image_format.description(), None)  # type: ignore[arg-type]
        image = reader.read(str(tmp_path / rows[order[index]]["photo"]))
        torch.testing.assert_close(batch["photo"]["pixel_values"][index], image.pixel_values)
    assert data.split_datasets["train"][23].keys() == {"inputs", "text", "photo", "labels"}


def test_images_in_parquet_files_are_read(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 24)
    as_paths = pa.Table.from_pylist(rows)
    contents = [(tmp_path / row["photo"]).read_bytes() for row in rows]
    structs = [{"bytes": content, "path": None} for content in contents]
    batches = []
    for name, column in (("paths", None), ("bytes", contents), ("structs", structs)):
        table = as_paths
        if column is not None:
            table = as_paths.drop_columns("photo").append_column("photo", pa.array(column))
        pq.write_table(table, tmp_path / f"{name}.parquet")
        data = data_of(str(tmp_path / f"{name}.parquet"), feature_columns=["photo"])
        assert data.tables.kinds == {"photo": "image"}
        batches.append(data.split_datasets["train"].batch(0, np.arange(9))["photo"])
    for batch in batches[1:]:
        torch.testing.assert_close(batch, batches[0], rtol=0, atol=0)


def test_relative_paths_are_relative_to_the_table_or_to_a_folder(
    write: Write, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "data").mkdir()
    rows = rows_of(tmp_path / "data", 24)
    near = data_of(write("data/t.csv", rows))
    with pytest.raises(UserError, match=r"t\.csv, line [0-9]+: photo: file .* not found"):
        data_of(write("t.csv", rows))
    monkeypatch.chdir(tmp_path)
    named = data_of(write("t.csv", rows), image_folder="data")
    first, second = (data.split_datasets["train"].batch(0, np.arange(9))["photo"] for data in (near, named))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    reader = TableReader(named.description(), TableInputAdapter.from_config(encoder_of(named)))
    monkeypatch.chdir("/")
    assert reader.read(f"photo={rows[0]['photo']}")[-1].shape == (3, 8, 8)


def test_long_texts_are_cut_and_reported(write: Write, tmp_path: Path) -> None:
    rows = [
        row | {"text": "word and word " * (20 if index == 4 else 2)} for index, row in enumerate(rows_of(tmp_path, 24))
    ]
    with pytest.warns(UserWarning, match="'text': 1 of 24 texts have up to 60 tokens, of which the first 10 are read"):
        data = data_of(write("t.csv", rows), max_seq_len=10, text_columns=["text"], feature_columns=["text"])
    lengths = [len(ids) for table in data.tables.splits.values() for ids in table.cells["text"]]
    assert sorted(lengths)[-2:] == [6, 10]
    assert (data.column_inputs or {})["text"]["max_seq_len"] == 10


@pytest.mark.parametrize("option", ["max_seq_len", "image_size"])
def test_options_are_those_of_the_trained_model(write: Write, tmp_path: Path, option: str) -> None:
    file = write("t.csv", rows_of(tmp_path, 24))
    trained = data_of(file, max_seq_len=10)
    data = TableFilesDataModule(test_files=file, target="class", **({"max_seq_len": 10, "image_size": 8} | {option: 9}))
    data.known = trained.description() | {"label_names": trained.label_names}
    message = rf"{option}=9: the model was trained with \d+ \(set {option}="
    with pytest.raises(UserError, match=message):
        data.setup()


def test_other_input_adapters_must_fit_the_data(write: Write, tmp_path: Path) -> None:
    data = data_of(write("t.csv", rows_of(tmp_path, 24)))
    inputs = data.column_inputs or {}
    for change, problem in (
        ({"text": {"adapter": "text", "vocab_size": 30, "max_seq_len": 256}}, "does not fit the model's vocab_size=30"),
        ({"photo": {"adapter": "image-pixels", "num_channels": 1}}, "does not fit the model's num_channels=1"),
        ({"scan": inputs["photo"]}, "the model's input 'scan' is not one of the data's"),
        ({"text": None}, "the data's input 'text' is not one of the model's"),
    ):
        columns = {name: value for name, value in (inputs | change).items() if value}
        config = replace(encoder_of(data), columns=columns)
        with pytest.raises(ValueError, match=problem):
            TableInputAdapter.from_config(config).check_data(data)
    pixels = {"photo": {"adapter": "image-pixels", "num_frequency_bands": 2, "max_resolution": [8, 8]}}
    adapter = TableInputAdapter.from_config(replace(encoder_of(data), columns=inputs | pixels))
    adapter.check_data(data)
    assert adapter(data.split_datasets["train"].batch(0, np.arange(2))).x.shape[1] > 64


# Prediction


def test_reader_reads_rows_as_in_training(write: Write, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 24)
    rows[2] |= {"text": "", "size": ""}
    rows[3] |= {"photo": ""}
    data = data_of(write("t.csv", rows), val_files=write("v.csv", rows[:4]))
    adapter = TableInputAdapter.from_config(encoder_of(data))
    adapter.check_data(data)
    reader = TableReader(json.loads(json.dumps(data.description())), adapter)
    expected = data.split_datasets["train"].batch(0, np.arange(24))
    in_memory = [{**row, "photo": Image.open(tmp_path / row["photo"]) if row["photo"] else None} for row in rows]
    sources = reader.expand([write("n.csv", [{**row, "id": 1} for row in rows])])
    for inputs in (sources, [reader.source_of(row, "inputs[0]") for row in in_memory]):
        batch = reader.collate([reader.read(source) for source in inputs])
        assert batch.keys() == {"inputs", "text", "photo"}
        for name in ("text", "photo"):
            torch.testing.assert_close(batch[name], expected[name], rtol=0, atol=0)
        torch.testing.assert_close(batch["inputs"], expected["inputs"], equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(adapter.eval()(batch).x, adapter(expected).x)
    batch = reader.collate([reader.read("size=0.5")])
    assert (batch["text"]["missing"].tolist(), batch["photo"]["missing"].tolist()) == ([True], [True])
    with pytest.raises(UserError, match="not available for tables with columns of texts or images"):
        reader.draw_attention(sources[0], reader.read(sources[0]), [], tmp_path / "x")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"text": None}, "readers: no description of that of 'text'"),
        ({"text": {"adapter": "perceiver-zoo:text"}}, "'text' .text.: invalid description of its reader"),
        ({"text": {"adapter": "perceiver-zoo:table"}}, "'text' .text.: input adapter 'table' reads no such columns"),
        ({"text": {"adapter": "acme:words"}}, "unknown input adapter 'acme:words'"),
        ({"photo": {"adapter": "perceiver-zoo:image-stages", "image_size": [8, 8]}}, "lacks 'num_channels'"),
    ],
)
def test_damaged_descriptions_are_refused(
    write: Write, tmp_path: Path, change: Mapping[str, Any], problem: str
) -> None:
    data = data_of(write("t.csv", rows_of(tmp_path, 24)))
    adapter = TableInputAdapter.from_config(encoder_of(data))
    columns = data.description()["columns"]
    columns["readers"] = {name: value for name, value in (columns["readers"] | change).items() if value is not None}
    with pytest.raises(UserError, match=problem):
        TableReader({"columns": columns}, adapter).read("size=1")


@pytest.mark.parametrize("length", [-3, 0, "7", 1e400, True])
def test_damaged_lengths_of_texts_are_refused(write: Write, tmp_path: Path, length: Any) -> None:
    data = data_of(write("t.csv", rows_of(tmp_path, 24)))
    columns = data.description()["columns"]
    columns["readers"]["text"]["max_seq_len"] = length
    with pytest.raises(UserError, match=r"'text' \(text\): invalid description of its reader"):
        TableReader({"columns": columns}, TableInputAdapter.from_config(encoder_of(data)))


# Models


def train(data: TableFilesDataModule, num_steps: int) -> Any:
    """Train a small classifier."""
    torch.manual_seed(0)
    decoder = ClassificationDecoderConfig(
        num_classes=2, num_output_query_channels=16, num_cross_attention_heads=1, pool_inputs=True
    )
    model = assemble(PerceiverConfig(encoder_of(data, number_dropout=0.1), decoder, 4, 32))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    dataset = data.split_datasets["train"]
    for step in range(num_steps):
        order = np.random.default_rng(step).permutation(len(dataset))[:32]
        batch = dataset.batch(0, order)
        optimizer.zero_grad()
        cross_entropy(model(batch), batch["labels"]).backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: Any, batch: Mapping[str, Any], rows: slice) -> float:
    return float((model(batch).argmax(-1) == batch["labels"])[rows].float().mean())


@pytest.mark.slow
def test_model_uses_texts_and_images(write: Write, tmp_path: Path) -> None:
    tests = rows_of(tmp_path, 100, seed=1)
    data = data_of(write("t.csv", rows_of(tmp_path, 200)), val_files=write("v.csv", tests), text_columns=["text"])
    model = train(data, 120)
    batch = data.split_datasets["validation"].batch(-1, np.arange(100))
    by_text, by_image = slice(0, None, 2), slice(1, None, 2)
    assert accuracy(model, batch, by_text) > 0.9
    assert accuracy(model, batch, by_image) > 0.9
    everywhere = torch.ones(100, dtype=torch.bool)
    blind, deaf = ({**batch, name: {**batch[name], "missing": everywhere}} for name in ("photo", "text"))
    assert accuracy(model, blind, by_text) > 0.8
    assert accuracy(model, blind, by_image) < 0.7
    assert accuracy(model, deaf, by_image) > 0.8
    assert accuracy(model, deaf, by_text) < 0.7


def test_table_of_images_alone_is_a_composite_of_one_part(write: Write, tmp_path: Path) -> None:
    rows = [{"photo": row["photo"], "x": index, "y": -index} for index, row in enumerate(rows_of(tmp_path, 24))]
    data = TableFilesDataModule(write("t.csv", rows), label_column=["x", "y"], image_size=8)
    data.setup()
    assert (data.num_features, data.num_categories, data.target_names) == (0, None, ["x", "y"])
    adapter = TableInputAdapter.from_config(encoder_of(data))
    assert isinstance(adapter, CompositeInputAdapter)
    assert [*adapter.parts] == ["photo"]
    batch = data.split_datasets["train"].batch(0, np.arange(4))
    assert batch["labels"].shape == (4, 2)
    assert adapter(batch).x.shape[:2] == (4, 1)


def test_other_tables_keep_their_adapter_and_description(write: Write) -> None:
    data = TableFilesDataModule(write("t.csv", [{"a": index, "label": index} for index in range(24)]))
    data.setup()
    assert data.column_inputs is None
    assert type(TableInputAdapter.from_config(encoder_of(data))) is TableInputAdapter
    assert data.description()["columns"].keys() == {"names", "mean", "std"}
    assert data.split_datasets["train"].batch(0, np.arange(2)).keys() == {"inputs", "labels"}


def test_image_content_is_data(tmp_path: Path) -> None:
    """An EPS file, which is a program, is not opened."""
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, "EPS")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    (tmp_path / "t.csv").write_text("photo,label\n" + "a.png,x\na.png,y\n" * 3)
    assert "t.csv, line 2: photo: not an image" in refused(str(tmp_path / "t.csv"))


def test_one_adapter_reads_a_kind_of_columns(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry().get("input", "text")
    other = replace(entry, spec=replace(entry.spec, name="words"))
    for entries, problem in (
        ([entry, other], "columns of texts: 2 input adapters read them: perceiver-zoo:text, perceiver-zoo:words"),
        ([], "columns of texts: no installed input adapter reads them (feature_columns leaves out such columns)"),
    ):
        monkeypatch.setattr(Registry, "entries", lambda self, kind, entries=entries: entries)
        with pytest.raises(UserError) as caught:
            adapter_of_kind("text")
        assert problem in str(caught.value)


@pytest.mark.parametrize("path", ["json:JSONDecoder", "json:Missing", "perceiver_plugins.sdk.data:ColumnReader"])
def test_contract_requires_complete_column_readers(path: str) -> None:
    spec = replace(registry().get("input", "text").spec, column_readers={"text": path})
    (check,) = (check for check in adapter_checks(spec) if check.name == "import_paths_resolve")
    with pytest.raises(AssertionError, match=r"column_readers\['text'\]"):
        check()
