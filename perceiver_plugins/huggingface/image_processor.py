"""What is done to images before a model of the zoo sees them, as an image processor of ``transformers``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_transforms import to_pil_image
from transformers.image_utils import make_flat_list_of_images

if TYPE_CHECKING:
    from perceiver_plugins.image.data.transforms import ImageFormat
    from perceiver_plugins.image.published import PublishedFormat


class ZooImageProcessor(BaseImageProcessor):
    """Turns images upright, into grey or colours, cuts out and resizes their middle at once, and normalises them.

    Args:
        size: ``height`` and ``width`` that the model takes.
        num_channels: 1 (grey) or 3 (red, green, blue).
        image_mean: what is subtracted from each channel of an image whose pixels are from 0 to 1.
        image_std: what each channel is then divided by.
        crop_pct: side of the part that is cut out of the middle, relative to that of the largest part of that shape.
        bit_depth: bits of grey images of 16 bits that are used.
        published: options of ``PerceiverImageProcessor``, which is used instead; None: it is not.
        kwargs: as for all image processors.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012

    def __init__(
        self,
        size: Mapping[str, int],
        num_channels: int = 3,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        crop_pct: float = 1.0,
        bit_depth: int = 16,
        published: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.size = dict(size)
        self.num_channels = num_channels
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.crop_pct = crop_pct
        self.bit_depth = bit_depth
        self.published = published

    @classmethod
    def from_description(cls, data: Mapping[str, Any]) -> ZooImageProcessor:
        """The processor that reads images as a checkpoint's data module did.

        Raises:
            UserError: if the checkpoint was not trained on images.
        """
        from perceiver_plugins.image.data.transforms import ImageFormat  # imports timm, which takes its time

        of_data = ImageFormat.from_description(data)
        height, width = of_data.image_size
        size = {"height": height, "width": width}
        return cls(
            size,
            of_data.num_channels,
            of_data.mean,
            of_data.std,
            of_data.crop_pct,
            of_data.bit_depth,
            data.get("processor"),
        )

    @property
    def image_format(self) -> ImageFormat | PublishedFormat:
        """What it makes of images."""
        from perceiver_plugins.image.data.transforms import ImageFormat
        from perceiver_plugins.image.published import published_format

        if self.published is not None:
            return published_format(self.published, "the image processor")
        return ImageFormat(
            (self.size["height"], self.size["width"]),
            self.num_channels,
            tuple(self.image_mean),
            tuple(self.image_std),
            self.crop_pct,
            self.bit_depth,
        )

    def preprocess(self, images: Any, return_tensors: str | None = None, **kwargs: Any) -> BatchFeature:
        """Prepares images for the model.

        Args:
            images: an image or several, of Pillow or as arrays of pixels.
            return_tensors: "pt" for torch's tensors. None: numpy's arrays.
            kwargs: of other image processors; they change nothing.

        Returns:
            ``pixel_values`` (b, channels, height, width).
        """
        from perceiver_plugins.image.data.decoding import decode

        image_format = self.image_format
        given: Any = make_flat_list_of_images(images)
        pictures: list[Image.Image] = [to_pil_image(image) for image in given]
        # A copy, since what is decoded is turned in place.
        decoded = [decode(picture.copy(), self.num_channels, self.bit_depth) for picture in pictures]
        pixel_values = [image_format.pixel_values([image])[0].numpy() for image in decoded]
        return BatchFeature({"pixel_values": np.stack(pixel_values)}, tensor_type=return_tensors)
