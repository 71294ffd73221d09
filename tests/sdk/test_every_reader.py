"""File names and file contents for all readers."""

from __future__ import annotations

import gzip
import os
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import PerceiverTokenizer

from perceiver_plugins.flow.reading import FrameReader
from perceiver_plugins.image.reading import ImageReader
from perceiver_plugins.multimodal import ClipReader
from perceiver_plugins.multimodal.data import ClipFormat
from perceiver_plugins.multimodal.data.files import write_clip
from perceiver_plugins.multimodal.data.format import Clip
from perceiver_plugins.music import Notes, write_midi
from perceiver_plugins.music.reading import MidiReader
from perceiver_plugins.music.tokens import default_tokenizer
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_plugins.table import TableInputAdapter, TableReader
from perceiver_plugins.text.reading import TextReader
from perceiver_plugins.text.tokenizers import serialize_tokenizer
from perceiver_registry import UserError

CLIP = ClipFormat(num_frames=2, frame_size=(16, 16), frame_rate=4, samples_per_frame=2000)
COLUMNS = {"names": ["age", "bmi"], "mean": [50.0, 25.0], "std": [10.0, 5.0]}
IMAGES = {"image_size": [8, 8], "num_channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0}


class Modality(NamedTuple):
    """Reader of a modality, and a valid file for it.

    Attributes:
        reader: factory of the reader.
        suffix: suffix of its files.
        write: writes a valid file.
        per_file: number of inputs in the file.
    """

    reader: Callable[[], Reader]
    suffix: str
    write: Callable[[Path], Any]
    per_file: int = 1


def text_reader(**data: Any) -> TextReader:
    description = {"tokenizer": serialize_tokenizer(PerceiverTokenizer()), "max_seq_len": 32} | data
    return TextReader(description, SimpleNamespace(max_seq_len=32))  # type: ignore[arg-type]


def table_reader() -> TableReader:
    return TableReader({"columns": COLUMNS}, TableInputAdapter(2, 4))


def music_reader() -> MidiReader:
    return MidiReader({"tokenizer": default_tokenizer().description()}, SimpleNamespace())  # type: ignore[arg-type]


def write_image(path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)


def write_video(path: Path) -> None:
    write_clip(path, Clip(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.zeros(4000)), CLIP)


READERS = {
    "text": Modality(text_reader, ".txt", lambda path: path.write_text("good")),
    "table": Modality(table_reader, ".csv", lambda path: path.write_text("age,bmi\n1,2\n3,4\n"), 2),
    "image": Modality(lambda: ImageReader(IMAGES, SimpleNamespace()), ".png", write_image),  # type: ignore[arg-type]
    "clip": Modality(lambda: ClipReader(CLIP.description(), nn.Identity()), ".mp4", write_video),  # type: ignore[arg-type]
    "flow": Modality(lambda: FrameReader({}, SimpleNamespace()), ".mp4", write_video),  # type: ignore[arg-type]
    "music": Modality(music_reader, ".mid", lambda path: write_midi(path, Notes.from_rows([(0, 1, 60, 64, False)]))),
}


@pytest.fixture(params=READERS.values(), ids=READERS)
def modality(request, tmp_path, monkeypatch) -> Modality:
    monkeypatch.chdir(tmp_path)
    return request.param


NAME_READERS = {name: READERS[name] for name in ("text", "table", "image", "flow")}
"""Readers that differ in how they expand names. Clips are expanded like images."""


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*left out.*")
        yield


def read(modality: Modality, *inputs: str) -> list[Any]:
    """Expand and read inputs."""
    reader = modality.reader()
    return [reader.read(source) for source in reader.sources(list(inputs))]


FILES = {
    "plain": "file",
    "spaces": "a file of mine",
    "escape sequence": "e\x1b[31m",
    "line end": "two\nlines",
    "equals sign": "age=3",
    "pattern": "a[1]*",
    "option": "--output=x",
    "right to left": "\u202etxt",
    "bytes": os.fsdecode(b"stra\xdfe"),
    "long": "x" * 200,
}


@pytest.mark.parametrize("modality", NAME_READERS.values(), ids=NAME_READERS, indirect=True)
@pytest.mark.parametrize("stem", FILES.values(), ids=FILES)
def test_files_of_any_name_are_read(modality, stem):
    path = Path(stem + modality.suffix)
    try:
        path.touch()
    except OSError:
        pytest.skip("this file system has no such names")
    modality.write(path)
    assert len(read(modality, str(path))) == modality.per_file


def test_existing_file_is_not_read_as_text(modality):
    if modality.suffix not in (".txt", ".csv"):
        pytest.skip("the format of other files is recognised by their contents")
    name = f"good{modality.suffix}.gz"  # the name could also be read as text or as a row
    modality.write(Path(f"good{modality.suffix}"))
    Path(name).write_bytes(gzip.compress(Path(f"good{modality.suffix}").read_bytes()))
    assert len(read(modality, name)) == modality.per_file


def test_folder_is_expanded_recursively(modality, tmp_path):
    if modality.reader().__class__ is FrameReader:
        pytest.skip("a folder of images is a sequence of frames")
    folder = tmp_path / "folder"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name in ("a", "deep/b", "deep/er/c", ".d", ".hidden/e"):
        modality.write(folder / (name + modality.suffix))
    (folder / "deep" / "loop").symlink_to(folder)
    assert len(read(modality, "folder")) == len(read(modality, str(folder))) == 3 * modality.per_file
    assert len(read(modality, f"folder/deep/*{modality.suffix}")) == modality.per_file


BAD_NAMES = {
    "missing": "missing{suffix}",
    "in no folder": "no/such/folder/x{suffix}",
    "pattern": "*{suffix}",
    "empty folder": "empty",
    "too long": "x" * 5000 + "{suffix}",
    "too long a path": "x/" * 3000 + "{suffix}",
    "no such user": "~nobody-of-that-name/x{suffix}",
    "null": "a\0b{suffix}",
    "null in a pattern": "a\0*{suffix}",
    "half a character": "\udce9{suffix}",
    "nothing": "",
}


@pytest.mark.parametrize("modality", NAME_READERS.values(), ids=NAME_READERS, indirect=True)
@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_missing_files_are_reported_in_one_line(modality, name, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "unrelated").touch()
    with pytest.raises(UserError) as error:
        read(modality, name.format(suffix=modality.suffix))
    assert "\n" not in str(error.value)
    assert "unrelated" not in str(error.value)


def test_misspelt_name_suggests_similar_names(modality):
    if modality.suffix not in (".txt", ".csv"):
        pytest.skip("the message is that of the library that reads it")
    modality.write(Path("reviews" + modality.suffix))
    with pytest.raises(UserError, match="did you mean 'reviews"):
        read(modality, "reviws" + modality.suffix)


CONTENTS = {
    "empty": b"",
    "blank": b"\n\n",
    "binary": b"\0\1\2" * 100,
    "not UTF-8": b"age,bmi\n1,\xe9\n",
    "UTF-16": "age,bmi\n1,2\n".encode("utf-16"),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_invalid_file_is_reported(modality, content):
    path = Path("x\x1b" + modality.suffix)
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read(modality, str(path))
    assert str(path) in str(error.value) or repr(str(path)) in str(error.value)
    assert "\n" not in str(error.value)


# Texts


def test_text_that_is_a_folder_is_read_as_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reader = text_reader()
    assert reader.expand(["texts"]) == ["texts"]
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("good")
    assert reader.expand(["texts"]) == ["texts/a.txt"]
    assert [*reader.sources(iter(["texts", "no folder"]))] == ["texts/a.txt", "no folder"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_long_text_is_truncated(side, tmp_path):
    words = " ".join(f"wörd{number}" for number in range(60_000))
    (tmp_path / "long.txt").write_text(words, encoding="utf-8")
    reader = text_reader(truncation_side=side)
    with pytest.warns(UserWarning, match="has more than 32 tokens: the model reads its"):
        found = reader.read(str(tmp_path / "long.txt"))
    expected = words.encode()[:32] if side == "right" else words.encode()[-32:]
    assert bytes((found.input_ids - 6).tolist()) == expected
    assert "".join(reader.tokens(found)) == expected.decode()
    assert len(found.text) < 1000
    assert reader.read(words).input_ids.tolist() == found.input_ids.tolist()


def peak(action: Callable[[], object]) -> int:
    """Measure the peak of allocated bytes during an action."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("side", ["left", "right"])
def test_memory_is_independent_of_text_length(side, tmp_path):
    (tmp_path / "small.txt").write_bytes(b"word " * 2**16)
    (tmp_path / "large.txt").write_bytes(b"word " * 10 * 2**20)  # 50 MiB
    reader = text_reader(truncation_side=side)
    reader._warn = lambda *_: None  # type: ignore[method-assign]
    small, large = (peak(lambda name=name: reader.read(str(tmp_path / name))) for name in ("small.txt", "large.txt"))
    assert large < small + 2**20


@pytest.mark.slow
def test_memory_is_independent_of_table_length(tmp_path):
    (tmp_path / "large.csv").write_text("age,bmi\n" + "1,2\n" * 30_000)
    reader = table_reader()
    rows = 0

    def read_all() -> None:
        nonlocal rows
        for source in reader.sources([str(tmp_path / "large.csv")]):
            reader.read(source)
            rows += 1

    assert peak(read_all) < 2**20
    assert rows == 30_000


# Tables


@pytest.mark.parametrize("written", ["=", "=3", "age", "age=3,", "age==3", "{'age': 3}", "age=" + "[" * 5000])
def test_invalid_rows_are_reported_in_a_short_line(written):
    with pytest.raises(UserError) as error:
        read(READERS["table"], written)
    assert len(str(error.value)) < 400


def test_row_of_many_columns_is_read():
    names = [f"column{number}" for number in range(1000)]
    data = {"columns": {"names": names, "mean": [0.0] * 1000, "std": [1.0] * 1000}}
    reader = TableReader(data, TableInputAdapter(1000, 4))
    written = ",".join(f"{name}=1" for name in names)  # longer than any file name
    (source,) = reader.expand([written])
    assert reader.read(source).tolist() == [1.0] * 1000


# Images


def test_zip_archive_is_expanded_to_images(tmp_path):
    write_image(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in ("cats/1.png", "dogs/2.png", ".hidden.png", "__MACOSX/3.png", "notes.txt"):
            archive.writestr(name, content)
        archive.writestr("dogs/damaged.png", content[:-30])
    reader = READERS["image"].reader()
    sources = reader.expand([str(tmp_path / "photos.zip"), str(tmp_path / "a.png")])
    names = ["photos.zip/cats/1.png", "photos.zip/dogs/2.png", "photos.zip/dogs/damaged.png", "a.png"]
    assert sources == [str(tmp_path / name) for name in names]
    assert all(torch.equal(reader.read(sources[n]).pixel_values, reader.read(sources[3]).pixel_values) for n in (0, 1))
    with pytest.raises(UserError, match=r"photos\.zip/dogs/damaged\.png: "):
        reader.read(sources[2])
    (tmp_path / "none.zip").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"none\.zip: neither a folder nor a zip archive"):
        reader.expand([str(tmp_path / "none.zip")])


# Objects in memory

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 12, 4), dtype=np.uint8)

ARRAYS = {
    "greyscale": PIXELS[..., 0],
    "one channel": PIXELS[..., :1],
    "colour": PIXELS[..., :3],
    "transparent": PIXELS,
    "16 bits": PIXELS[..., 0] * np.uint16(200),
    "not contiguous": PIXELS[::-1, ::2, 2::-1],
}


def write_exactly(pixels: np.ndarray, path: Path, **options: Any) -> Image.Image:
    """Write an image losslessly, and return it."""
    image = Image.fromarray(np.ascontiguousarray(pixels.squeeze()))
    image.save(path, **options)
    return image


@pytest.mark.parametrize("pixels", ARRAYS.values(), ids=ARRAYS)
def test_image_in_memory_is_read_like_its_file(pixels, tmp_path):
    image = write_exactly(pixels, tmp_path / "a.png")
    reader = READERS["image"].reader()
    expected = reader.read(str(tmp_path / "a.png")).pixel_values
    for value in (pixels, image, Image.open(tmp_path / "a.png")):
        source = reader.source_of(value, "inputs[0]")
        assert source == "inputs[0]"
        for _ in range(2):  # reading leaves the object as it is
            assert torch.equal(reader.read(source).pixel_values, expected)


def test_image_in_memory_is_rotated_like_its_file(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # rotated by 90 degrees
    image = write_exactly(PIXELS[..., :3], tmp_path / "a.png")
    image.save(tmp_path / "rotated.png", exif=exif)
    reader = READERS["image"].reader()
    opened = Image.open(tmp_path / "rotated.png")
    found = reader.read(reader.source_of(opened, "x")).pixel_values
    assert torch.equal(found, reader.read(str(tmp_path / "rotated.png")).pixel_values)
    assert not torch.equal(found, reader.read(str(tmp_path / "a.png")).pixel_values)
    assert opened.getexif()[274] == 6


def test_frames_in_memory_are_read_like_their_files(tmp_path):
    frames = [PIXELS[..., :3], PIXELS[..., 1:]]
    images = [write_exactly(frame, tmp_path / f"{number}.png") for number, frame in enumerate(frames)]
    reader = READERS["flow"].reader()
    expected = reader.read(*reader.expand([str(tmp_path)]))
    for pair in (tuple(images), frames, np.stack(frames)):
        assert torch.equal(reader.read(reader.source_of(pair, "x")), expected)


def test_row_in_memory_is_read_like_a_file(tmp_path):
    (tmp_path / "a.csv").write_text("age,note,bmi\n59,x,\n")
    reader = READERS["table"].reader()
    expected = reader.read(*reader.expand([str(tmp_path / "a.csv")]))
    for row in (
        {"bmi": None, "age": 59},
        {"age": np.float32(59), "bmi": np.nan, "note": "x"},
        {"age": "59", "bmi": ""},
    ):
        np.testing.assert_array_equal(reader.read(reader.source_of(row, "x")), expected)


WRONG_OBJECTS = {
    "number": ("image", 3, "x: must be a text or path or an image (of Pillow, or an array), got int"),
    "list": ("image", [[1, 2]], "x: must be a text or path or an image (of Pillow, or an array), got list"),
    "float": (
        "image",
        PIXELS / 255,
        "x: pixels must be uint8 from 0 to 255, or uint16 of a greyscale image, got float64",
    ),
    "deep colour": ("image", PIXELS.astype(np.uint16), "x: pixels must be uint8 from 0 to 255, or uint16 of a grey"),
    "row of pixels": (
        "image",
        PIXELS[0, :, 0],
        "x: an image must be an array (height, width) or (height, width, chann",
    ),
    "five channels": ("image", np.zeros((3, 4, 5), np.uint8), "x: an image must be an array (height, width) or (heig"),
    "empty": ("image", PIXELS[:0], "x: an image must be an array (height, width) or (height, width, channels)"),
    "single frame": ("flow", PIXELS, "x: must be a text or path or a pair of images (of Pillow, or arrays), got nda"),
    "sizes": ("flow", [PIXELS, PIXELS[1:]], "x: frames of different sizes, 10x12 and 9x12 pixels"),
    "column": ("table", {"age": 3}, "x: no column 'bmi'; the model's columns must be one of: age"),
    "value": ("table", {"age": 3, "bmi": "much"}, "x: bmi: 'much' is not a finite number"),
    "array": ("table", np.zeros(2), "x: must be a text or path or a row of a table (a dict), got ndarray"),
    "notes": ("music", [60, 62], "x: must be a text or path, got list"),
}


@pytest.mark.parametrize(("name", "value", "message"), WRONG_OBJECTS.values(), ids=WRONG_OBJECTS)
def test_wrong_objects_are_reported(name, value, message):
    reader = READERS[name].reader()
    with pytest.raises(UserError) as raised:
        reader.read(reader.source_of(value, "x"))
    assert str(raised.value).startswith(message)
