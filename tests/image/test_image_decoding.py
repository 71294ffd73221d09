"""Decoding of images: file formats, bit depth, transparency, errors."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from perceiver_plugins.image.data import ImageFolderDataModule, decoding
from perceiver_plugins.image.data.decoding import decode, image_errors, open_image
from perceiver_plugins.image.reading import ImageReader
from perceiver_plugins.sdk.errors import DataError

ROOT = Path(__file__).parents[2]
PACKAGES = ("perceiver_core", "perceiver_plugins", "registry", "cli")


def is_image_open(node: ast.AST) -> bool:
    """Check whether a syntax node is Pillow's function ``open``, or imports it."""
    if isinstance(node, ast.ImportFrom):
        return node.module == "PIL.Image"
    return isinstance(node, ast.Attribute) and node.attr == "open" and ast.unparse(node.value).endswith("Image")


@pytest.mark.slow
def test_images_are_opened_by_one_module():
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    sources = {path: path.read_text(encoding="utf-8") for path in paths}
    found = [
        path.relative_to(ROOT).as_posix()
        for path, source in sources.items()
        if "Image" in source  # others cannot open images, and parsing takes seconds
        for node in ast.walk(ast.parse(source))
        if is_image_open(node)
    ]
    assert found == ["perceiver_plugins/image/data/decoding.py"]


def encoded(image: Image.Image, kind: str, **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def test_postscript_and_other_formats_are_rejected(monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("a program was run"))
    eps = io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    for file in (eps, encoded(Image.new("RGB", (8, 8)), "PCX")):
        with pytest.raises(DataError, match=r"a\.png: not an image, or of an unknown format"), image_errors("a.png"):
            decode(open_image(file), 3)


def test_huge_images_are_rejected_by_their_header(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 99)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as some libraries have it
    assert open_image(encoded(Image.new("L", (11, 9)), "PNG")).size == (11, 9)
    with (
        pytest.raises(DataError, match=r"a: the image cannot be read \(it has 10x10 pixels, more than 99"),
        image_errors("a"),
    ):
        open_image(encoded(Image.new("L", (10, 10)), "PNG"))


@pytest.mark.parametrize("error", [TypeError, AttributeError, NameError])
def test_programming_errors_are_not_converted(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    with pytest.raises(error), image_errors("a.png"):
        decode(open_image(encoded(Image.new("L", (3, 3)), "PNG")), 1)


# Transparency

RED = (200, 100, 0)


@pytest.mark.parametrize(
    ("mode", "opacity", "num_channels"),
    [
        *[("RGBA", 0, 1), ("RGBA", 100, 3), ("RGBA", 255, 3), ("LA", 100, 1), ("LA", 0, 3), ("RGBa", 100, 1)],
        *[("RGBa", 255, 3), ("P", 100, 1), ("P", 0, 3)],
    ],
)
def test_transparent_images_are_composed_on_white(mode, opacity, num_channels):
    image = Image.new("RGBA", (4, 3), (*RED, opacity))
    if mode == "P":
        image = Image.new("P", (4, 3), 1)
        image.putpalette([0, 0, 0, *RED])
        image = Image.open(encoded(image, "PNG", transparency=bytes([255, opacity])))
    elif mode == "LA":
        image = Image.merge("LA", [Image.new("L", (4, 3), 100), Image.new("L", (4, 3), opacity)])
    else:
        image = image.convert(mode)
    colour = np.array([100] * 3 if mode == "LA" else RED)
    expected = 255 + (colour - 255) * opacity / 255
    if num_channels == 1:
        expected = expected @ [0.299, 0.587, 0.114]
    found = np.asarray(decode(image, num_channels)).reshape(12, -1)
    assert np.abs(found - expected).max() <= 2


def test_transparent_colour():
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), (0, 0, 0))
    found = decode(open_image(encoded(image, "PNG", transparency=RED)), 3)
    assert np.asarray(found).tolist() == [[[255] * 3, [0] * 3]]


# Depth


def scans(path: Path, *ranges: tuple[int, int], shape: tuple[int, ...] = (8, 8)) -> Path:
    """Write two classes of greyscale images of 16 bits, each with a range of values."""
    rng = np.random.default_rng(0)
    for name, (low, high) in zip("ab", ranges, strict=True):
        (path / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(low, high, shape, endpoint=True).astype(np.uint16)
            pixels[0, 0] = high
            Image.fromarray(pixels).save(path / name / f"{i}.png")
    return path


@pytest.mark.parametrize(
    ("highest", "bit_depth"), [(255, 8), (256, 10), (1023, 10), (4095, 12), (4096, 14), (16383, 14), (65535, 16)]
)
def test_bit_depth_is_that_of_the_brightest_image(tmp_path, caplog, highest, bit_depth):
    path = scans(tmp_path / "scans", (0, 200), (100, highest))
    with caplog.at_level("INFO"):
        data = ImageFolderDataModule(str(path), num_channels=1, mean=0.0, std=1 / 255)
        data.setup()
    assert data.description()["bit_depth"] == bit_depth
    assert (f"bit_depth={bit_depth}: the brightest pixel of 6 images of 16 bits is {highest}" in caplog.text) == (
        bit_depth < 16
    )
    brightest = max(float(batch["pixel_values"].max()) for batch in data.train_dataloader())
    assert round(brightest) == highest >> (bit_depth - 8)
    file = path / "b" / "0.png"  # prediction uses the same bit depth
    found = ImageReader(data.description(), None).read(str(file)).pixel_values
    expected = np.asarray(Image.open(file)) >> (bit_depth - 8)
    assert np.abs(found[0].numpy() - expected).max() < 0.01


def test_bit_depth_option(tmp_path):
    data = ImageFolderDataModule(str(scans(tmp_path, (0, 200), (100, 4095))), num_channels=1, bit_depth=9)
    assert data.image_format.bit_depth == 9


def test_more_than_16_bits_are_rejected():
    for value in (65536, -1):
        with (
            pytest.raises(DataError, match=rf"its pixels are from {value} to {value}, outside of 16 bits"),
            image_errors("a"),
        ):
            decode(open_image(encoded(Image.fromarray(np.full((3, 3), value, np.int32)), "TIFF")), 1)


# Kinds of files


def test_common_suffixes_are_read(tmp_path, caplog):
    kinds = {".jfif": "JPEG", ".JPG": "JPEG", ".jpe": "JPEG", ".tif": "TIFF", ".webp": "WEBP", ".jp2": "JPEG2000"}
    if features.check("avif"):
        kinds[".avif"] = "AVIF"
    for name in "ab":
        (tmp_path / name).mkdir()
        for suffix, kind in kinds.items():
            Image.new("RGB", (16, 16), (90, 60, 30)).save(tmp_path / name / f"x{suffix}", kind)
    with caplog.at_level("INFO"):
        data = ImageFolderDataModule(str(tmp_path), mean=0.0, std=1 / 255, random_shift=0)
        data.setup()
    assert "left out" not in caplog.text
    assert sum(map(len, data.splits.images.values())) == 2 * len(kinds)
    for batch in data.train_dataloader():
        assert (batch["pixel_values"].mean(dim=(2, 3)).numpy() - [90, 60, 30]).__abs__().max() < 4


def test_frames_after_the_first_are_reported(tmp_path, caplog):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(3):
            first, *others = (Image.new("L", (8, 8), value) for value in (10, 100, 200))
            first.save(tmp_path / name / f"{i}.gif", save_all=True, append_images=others if name == "a" else [])
    with caplog.at_level("INFO"):
        data = ImageFolderDataModule(str(tmp_path), num_channels=1, mean=0.0, std=1 / 255)
        data.setup()
    assert "2 of 4 images have several frames or pages, of which only the first is read" in caplog.text
    assert {round(float(batch["pixel_values"].max())) for batch in data.train_dataloader()} == {10}
