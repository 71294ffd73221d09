"""The image processor returns the pixel values of the reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from perceiver_plugins.huggingface import ZooImageProcessor
from perceiver_plugins.image.reading import ImageReader
from perceiver_registry import UserError

FORMATS = {
    "colour": {
        "image_size": [8, 12],
        "num_channels": 3,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "crop_pct": 0.9,
    },
    "grey": {"image_size": [11, 11], "num_channels": 1, "mean": [0.13], "std": [0.31], "crop_pct": 1.0},
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Images of several sizes and modes, one with an EXIF rotation."""
    folder, chance = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, shape in {"wide": (9, 31, 3), "high": (40, 13, 3), "alpha": (20, 21, 4), "grey": (17, 16)}.items():
        Image.fromarray(chance.integers(256, size=shape, dtype=np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(chance.integers(2**16, size=(15, 18), dtype=np.uint16)).save(folder / "deep.png")
    Image.open(folder / "wide.png").quantize(16).save(folder / "palette.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.open(folder / "high.png").save(folder / "turned.jpg", exif=turned)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("kind", FORMATS)
def test_pixel_values_equal_the_readers(kind: str, pictures: list[Path], tmp_path: Path) -> None:
    reader = ImageReader(FORMATS[kind], nn.Identity())  # type: ignore[arg-type]
    ZooImageProcessor.from_description(FORMATS[kind]).save_pretrained(tmp_path)
    processor = ZooImageProcessor.from_pretrained(tmp_path)
    opened = [Image.open(picture) for picture in pictures]
    ours = processor(images=opened, return_tensors="pt")
    expected = reader.collate([reader.read(str(picture)) for picture in pictures])
    torch.testing.assert_close(ours["pixel_values"], expected["pixel_values"], rtol=0, atol=0)
    # The given images are unchanged.
    again = processor(images=opened[0], return_tensors="pt")
    torch.testing.assert_close(again["pixel_values"], expected["pixel_values"][:1], rtol=0, atol=0)
    assert opened[-1].size == Image.open(pictures[-1]).size


def test_images_as_arrays(pictures: list[Path]) -> None:
    processor = ZooImageProcessor.from_description(FORMATS["colour"])
    image = Image.open(next(path for path in pictures if path.stem == "wide"))
    expected = processor(images=image)["pixel_values"]
    assert expected.shape == (1, 3, 8, 12)
    assert expected.dtype == np.float32
    for array in (np.asarray(image), np.asarray(image).transpose(2, 0, 1), torch.from_numpy(np.array(image))):
        np.testing.assert_array_equal(processor(images=array)["pixel_values"], expected)


def test_description_of_other_data_is_refused() -> None:
    with pytest.raises(UserError, match="not trained on images"):
        ZooImageProcessor.from_description({"tokenizer": {}})
