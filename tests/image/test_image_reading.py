"""Reader of images: files, model inputs and attention maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perceiver_core import InputAdapter
from perceiver_plugins.image.adapters import ImagePatchesInputAdapter, ImagePixelsInputAdapter
from perceiver_plugins.image.config import ImagePatchesEncoderConfig, ImagePixelsEncoderConfig
from perceiver_plugins.image.data import DigitsDataModule, ImageDataModule, ImageFolderDataModule
from perceiver_plugins.image.reading import ImageExample, ImageReader
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import UserError

PIXELS = ImagePixelsInputAdapter(ImagePixelsEncoderConfig(num_channels=1, num_frequency_bands=2))
FORMAT = {"image_size": [8, 12], "num_channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0}


def write(path: Path, size: tuple[int, int] = (12, 8), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


# files


def test_files_folders_and_patterns_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.png", "a.JPG", "deep/er/c.webp", ".hidden.png", ".git/d.png", "x[1].png"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    expand = ImageReader(FORMAT, PIXELS).expand
    assert expand(["b.png", "a.JPG"]) == ["b.png", "a.JPG"]
    assert expand([str(tmp_path)]) == [
        str(tmp_path / name) for name in ("a.JPG", "b.png", "deep/er/c.webp", "x[1].png")
    ]
    assert expand(["deep", "b.png", "deep"]) == ["deep/er/c.webp", "b.png"]
    assert expand(["*.png"]) == ["b.png", "x[1].png"]
    assert expand(["**/*.webp"]) == ["deep/er/c.webp"]
    assert expand(["x[1].png"]) == ["x[1].png"]
    assert expand(["missing.png", "b.png"]) == ["missing.png", "b.png"]  # missing files are reported when they are read
    with pytest.raises(UserError, match=r"no file matches '\*\.tiff'"):
        expand(["b.png", "*.tiff"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no images \(\.jpg, .*\) in the folder"):
        expand(["empty"])


def test_unreadable_images_are_reported(tmp_path: Path) -> None:
    reader = ImageReader(FORMAT, PIXELS)
    damaged, text = write(tmp_path / "a.jpg"), tmp_path / "b.png"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    text.write_text("no image")
    for source, message in (
        (tmp_path / "missing.png", "cannot be read (No such file or directory)"),
        (damaged, "cannot be read ("),
        (text, "not an image"),
        (tmp_path, "cannot be read (Is a directory)"),
    ):
        with pytest.raises(DataError) as caught:
            reader.read(str(source))
        assert str(caught.value).startswith(f"{source}: ")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_model_of_another_modality_is_rejected() -> None:
    with pytest.raises(UserError, match="the model was not trained on images"):
        ImageReader({"tokenizer": "x", "max_seq_len": 3}, PIXELS)


# pixels


def assert_reads_as_validation(module: ImageDataModule, sources: list[Path]) -> None:
    module.setup()
    reader = ImageReader(module.description(), PIXELS)
    read = reader.collate([reader.read(str(source)) for source in sources])
    expected = next(iter(module.val_dataloader()))["pixel_values"][: len(sources)]
    assert set(read) == {"pixel_values"}
    assert torch.equal(read["pixel_values"], expected)


@pytest.mark.parametrize("options", [{}, {"image_size": (10, 6)}, {"num_channels": 3}, {"image_size": 5, "mean": 0.4}])
def test_digits_are_read_as_in_validation(options: dict, tmp_path: Path) -> None:
    module = DigitsDataModule(**options)
    images = module.splits.images["validation"]
    sources = []
    for index in range(5):
        sources.append(tmp_path / f"{index}.png")
        images.store.open(int(images.numbers[index])).save(sources[-1])
    assert_reads_as_validation(module, sources)


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("options", [{}, {"image_size": 20}, {"image_size": (20, 31), "crop_pct": 0.7}])
def test_files_are_read_as_in_validation(num_channels: int, options: dict, tmp_path: Path) -> None:
    sources = []
    for index, (size, mode) in enumerate([((90, 60), "RGB"), ((33, 70), "RGBA"), ((12, 8), "CMYK"), ((250, 260), "P")]):
        suffix = {"CMYK": "jpg", "P": "gif"}.get(mode, "png")
        sources.append(write(tmp_path / "val" / f"class {index}" / f"a.{suffix}", size, mode))
        write(tmp_path / "train" / f"class {index}" / "a.png", size)
    module = ImageFolderDataModule(str(tmp_path), num_channels=num_channels, **options)
    assert_reads_as_validation(module, sources)


# pictures


def test_the_picture_is_what_the_model_sees(tmp_path: Path) -> None:
    columns, rows = np.meshgrid(np.arange(900), np.arange(600))
    Image.fromarray(np.stack([columns // 4, rows // 4, rows], axis=-1).astype(np.uint8)).save(tmp_path / "a.png")
    reader = ImageReader({**FORMAT, "image_size": [8, 8], "crop_pct": 0.9}, PIXELS)
    picture = reader.read(str(tmp_path / "a.png")).picture
    assert picture.size == (448, 448)
    red, green, _ = np.asarray(picture).transpose(2, 0, 1).astype(int) * 4
    assert (red.min(), red.max()) == (pytest.approx(180, abs=6), pytest.approx(720, abs=6))
    assert (green.min(), green.max()) == (pytest.approx(30, abs=6), pytest.approx(570, abs=6))
    small = reader.read(str(write(tmp_path / "b.png", (20, 10)))).picture
    assert small.size == (9, 9)


@pytest.mark.parametrize(("layers", "across", "down"), [(1, 2, 1), (3, 2, 2), (8, 3, 3)])
def test_attention_is_drawn(layers: int, across: int, down: int, tmp_path: Path) -> None:
    grey = {**FORMAT, "num_channels": 1, "mean": [0.5], "std": [0.5]}
    reader = ImageReader(grey, PIXELS)
    source = str(write(tmp_path / "a $b$ c.png"))
    weights = [torch.rand(8 * 12).softmax(0) for _ in range(layers)]
    written = reader.draw_attention(source, reader.read(source), weights, tmp_path / "out" / "image.v1")
    assert written == tmp_path / "out" / "image.v1.png"
    with Image.open(written) as picture:
        assert picture.width / picture.height == pytest.approx(across / (down * (8 / 12 + 0.1)), rel=0.02)


@pytest.mark.slow
def test_attention_map_is_drawn_at_the_position_of_the_weight(tmp_path: Path) -> None:
    adapter = ImagePatchesInputAdapter(
        ImagePatchesEncoderConfig(num_channels=3, patch_size=4, num_patch_channels=4, num_frequency_bands=2)
    )
    reader = ImageReader(FORMAT, adapter)
    source = tmp_path / "grey.png"
    Image.new("RGB", (12, 8), (128, 128, 128)).save(source)
    example = reader.read(str(source))
    assert reader.tokens(example) == ["0,0", "0,1", "0,2", "1,0", "1,1", "1,2"]
    found = []
    for position in range(6):  # 2 rows of 3 patches
        weights = torch.zeros(6)
        weights[position] = 1.0
        written = reader.draw_attention(str(source), example, [weights], tmp_path / str(position))
        pixels = np.asarray(Image.open(written).convert("RGB")).astype(float)
        middle = pixels.shape[1] // 2
        # The left half is the picture, the right one the attention map over it.
        grey = (pixels[:, :middle] == 128).all(axis=2)
        y, x = (np.nonzero(grey.sum(axis=axis) > 50)[0][4:-4] for axis in (1, 0))
        drawn = pixels[y[0] : y[-1], middle + x[0] : middle + x[-1]].sum(axis=2)
        heat = (drawn - drawn.min()) ** 4 / ((drawn - drawn.min()) ** 4).sum()
        height, width = heat.shape
        down, across = heat.sum(axis=1) @ np.linspace(0, 2, height), heat.sum(axis=0) @ np.linspace(0, 3, width)
        found.append((int(down), int(across)))
    assert found == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_undrawable_attention_is_reported(tmp_path: Path) -> None:
    source = str(write(tmp_path / "a.png"))
    reader = ImageReader(FORMAT, InputAdapter(3))
    example = reader.read(source)
    assert isinstance(example, ImageExample)
    with pytest.raises(UserError, match="InputAdapter: the input positions are not a grid in an image"):
        reader.draw_attention(source, example, [torch.ones(96)], tmp_path / "x")
    with pytest.raises(
        UserError, match=r"a\.png: attention cannot be drawn: the image has 8x12 positions, .* input 95"
    ):
        ImageReader(FORMAT, PIXELS).draw_attention(source, example, [torch.ones(95)], tmp_path / "x")
    assert not list(tmp_path.glob("x*"))
