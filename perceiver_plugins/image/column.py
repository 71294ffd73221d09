"""Reader of table columns of images."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perceiver_plugins.image.data.decoding import IN_MEMORY, copy_image, decode, image_errors, open_image
from perceiver_plugins.image.data.module import IMAGENET_MEAN, IMAGENET_STD
from perceiver_plugins.image.data.transforms import ImageFormat
from perceiver_plugins.sdk.data.cells import is_missing, kind_of
from perceiver_plugins.sdk.data.column_reader import Cell, ColumnOptions, ColumnReader, refuse_other_value
from perceiver_plugins.sdk.data.missing_files import missing
from perceiver_plugins.sdk.data.module import check_positive
from perceiver_plugins.sdk.data.paths import as_path
from perceiver_plugins.sdk.errors import DataError

NUM_STAGES = 3
"""Stages of the convolutional network, each of which halves height and width: the default of the adapter."""

NUM_CONV_CHANNELS = 64
"""Channels of its features: half of those of image classification, as tables have other columns as well."""


class ImageColumn(ColumnReader):
    """Reader of a column of images: paths of files, or the content of files in Parquet tables.

    Relative paths are relative to ``folder`` or, without one, to the folder of the table. Images are decoded and
    resized once, to RGB of 8 bits.

    Args:
        image_format: format of the model's input images.
        folder: folder that relative paths are relative to. None: that of the table.
    """

    def __init__(self, image_format: ImageFormat, folder: str | None = None) -> None:
        self.image_format = image_format
        self.folder = folder

    @classmethod
    def fit(cls, cells: Sequence[Cell], options: ColumnOptions) -> Self:
        check_positive(image_size=options.image_size)
        size = (options.image_size, options.image_size)
        folder = options.image_folder
        return cls(ImageFormat(size, 3, IMAGENET_MEAN, IMAGENET_STD), folder and os.path.abspath(as_path(folder)))

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        return cls(ImageFormat.from_description(description), description.get("folder"))

    def description(self) -> dict[str, Any]:
        return {**self.image_format.description(), "folder": self.folder}

    def check_options(self, options: ColumnOptions) -> None:
        refuse_other_value("image_size", options.image_size, max(self.image_format.image_size))

    def encoder_fields(self) -> dict[str, Any]:
        grid = [-(-size // 2**NUM_STAGES) for size in self.image_format.image_size]
        return {
            "num_channels": self.image_format.num_channels,
            "num_conv_channels": NUM_CONV_CHANNELS,
            "num_stages": NUM_STAGES,
            "max_resolution": grid,
        }

    @property
    def blank(self) -> Tensor:
        """Image of the mean colour, (channels, height, width) uint8."""
        mean = torch.tensor(self.image_format.mean).mul(255).round().to(torch.uint8)
        return mean[:, None, None].expand(-1, *self.image_format.image_size)

    def read(self, cell: Cell) -> Tensor | None:
        """Return the pixels (channels, height, width) of an image, uint8; None if it is missing.

        Raises:
            DataError: if the file does not exist, or is not an image.
        """
        value = _content(cell.value)
        if is_missing(value):
            return None
        with image_errors(cell.where):
            image = decode(self._open(value, cell), self.image_format.num_channels, self.image_format.bit_depth)
            pixels = np.array(self.image_format.cut(image))
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    def _open(self, value: Any, cell: Cell) -> Image.Image:
        if isinstance(value, IN_MEMORY):
            return copy_image(value, cell.where)
        if isinstance(value, bytes):
            return open_image(io.BytesIO(value))
        if not isinstance(value, str):
            raise DataError(f"{cell.where}: must be the path of an image, got {kind_of(value)}")
        path = Path(self.folder or cell.folder) / as_path(value.strip())
        if not path.is_file():  # neither devices nor pipes, which may not end
            raise DataError(f"{cell.where}: {missing(path)}")
        return open_image(path)

    def collate(self, examples: Sequence[Tensor]) -> dict[str, Tensor]:
        """Collate pixels to ``pixel_values`` (b, channels, height, width), float32, normalised."""
        return {"pixel_values": self.image_format.normalize(torch.stack(list(examples)))}


def _content(value: Any) -> Any:
    """Return the content or path in an image of the library ``datasets``; any other value unchanged."""
    if isinstance(value, Mapping):
        content = value.get("bytes")
        return value.get("path") if content is None else content
    return value
