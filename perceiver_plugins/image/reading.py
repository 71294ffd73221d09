"""Reader of images for ``perceiver predict``."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perceiver_core import Batch, InputAdapter
from perceiver_plugins.image.data.decoding import IN_MEMORY, SUFFIXES, copy_image, decode, image_errors, open_image
from perceiver_plugins.image.data.transforms import ImageFormat
from perceiver_plugins.image.published import image_format_of
from perceiver_plugins.sdk.prediction.attention_maps import draw_attention_maps
from perceiver_plugins.sdk.prediction.file_reader import FileReader
from perceiver_plugins.sdk.prediction.reader import InMemory, Reader, not_in_memory
from perceiver_registry import UserError

PICTURE_SIZE = 448
"""Largest side in pixels of a picture below attention maps. Arbitrary."""


class ImageExample(NamedTuple):
    """Image as model input and as picture.

    Attributes:
        pixel_values: (channels, height, width), the model's input.
        picture: the same crop of the image in its own resolution, up to :data:`PICTURE_SIZE`, for attention maps.
    """

    pixel_values: Tensor
    picture: Image.Image


class ImageReader(FileReader):
    """Reader of image files, also in zip archives. Images are preprocessed as in validation.

    Args:
        data: the ``description()`` of the data module.
        input_adapter: the model's input adapter.

    Raises:
        UserError: if the model was not trained on images.
    """

    suffixes = SUFFIXES
    noun = "images"

    def __init__(self, data: Mapping[str, Any], input_adapter: InputAdapter) -> None:
        super().__init__(data, input_adapter)
        self.image_format = image_format_of(data)

    @classmethod
    def example(cls, input_adapter: InputAdapter, folder: Path) -> tuple[Reader, list[str]]:
        channels, *size = input_adapter.example_batch(1, torch.Generator())["pixel_values"].shape[1:]
        image_format = ImageFormat((size[0], size[1]), channels, (0.5,) * channels, (0.5,) * channels)
        for number in range(2):
            Image.new("RGB", (20, 30), (100 * number, 50, 0)).save(folder / f"{number}.png")
        return cls(image_format.description(), input_adapter), [str(folder)]

    def decode(self, content: bytes, name: str) -> ImageExample:
        """Decode an image.

        Raises:
            DataError: if it is not an image, or damaged.
        """
        with image_errors(name):
            return self._example(open_image(io.BytesIO(content)), name)

    def source_of(self, value: Any, name: str) -> InMemory:
        """Convert a Pillow image, or an array (height, width[, channels]) of uint8, to a source.

        Raises:
            UserError: if it is not an image.
        """
        if not isinstance(value, IN_MEMORY):
            raise not_in_memory(name, value, "an image (of Pillow, or an array)")
        return InMemory(name, value)

    def read(self, source: str) -> ImageExample:
        """Read and decode an image.

        Raises:
            UserError: if it cannot be read.
        """
        if isinstance(source, InMemory):
            return self._example(copy_image(source.value, source), source)
        return super().read(source)

    def _example(self, opened: Image.Image, name: str) -> ImageExample:
        with image_errors(name):
            image = decode(opened, self.image_format.num_channels, self.image_format.bit_depth)
            pixel_values = self.image_format.pixel_values([image])[0]
        box = self.image_format.centre(image)
        width, height = box[2] - box[0], box[3] - box[1]
        scale = min(1.0, PICTURE_SIZE / max(width, height))
        picture = image.resize((math.ceil(width * scale), math.ceil(height * scale)), box=box)
        return ImageExample(pixel_values, picture.convert("RGB"))

    def collate(self, examples: Sequence[ImageExample]) -> Batch:
        """Collate examples to ``pixel_values`` (b, channels, height, width).

        Raises:
            UserError: if the images have different sizes.
        """
        if len({example.pixel_values.shape for example in examples}) > 1:
            raise UserError("images of different sizes cannot be batched")
        return {"pixel_values": torch.stack([example.pixel_values for example in examples])}

    def tokens(self, example: ImageExample) -> list[str]:
        """Name each input position by its row and column: "0,0", "0,1", ..."""
        rows, columns = self._grid(example)
        return [f"{row},{column}" for row in range(rows) for column in range(columns)]

    def draw_attention(self, source: str, example: ImageExample, weights: Sequence[Tensor], path: Path) -> Path:
        """Draw the attention map of each cross-attention layer over the image.

        Returns:
            Path of the PNG file.

        Raises:
            UserError: if the input positions are not a grid.
        """
        rows, columns = self._grid(example)
        for values in weights:
            if len(values) != rows * columns:
                raise UserError(
                    f"{source}: attention cannot be drawn: the image has {rows}x{columns} positions, the model's "
                    f"input {len(values)}"
                )
        maps = [values.detach().float().cpu().reshape(rows, columns).numpy() for values in weights]
        height, width = example.pixel_values.shape[1:]
        return draw_attention_maps(np.asarray(example.picture), Path(source).name, maps, path, height / width)

    def _grid(self, example: ImageExample) -> tuple[int, int]:
        """Return the rows and columns of the m input positions."""
        grid = getattr(self.input_adapter, "grid", None)
        if grid is None:
            raise UserError(f"{type(self.input_adapter).__name__}: the input positions are not a grid in an image")
        height, width = example.pixel_values.shape[1:]
        return grid(height, width)
