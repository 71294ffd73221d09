"""Image processor of the zoo's models for ``transformers``."""

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
    """Rotate images upright, convert them to grey or RGB, crop the centre, resize and normalise.

    Args:
        size: ``height`` and ``width`` of the model's input.
        num_channels: 1 (grey) or 3 (RGB).
        image_mean: mean per channel of pixel values from 0 to 1, which is subtracted.
        image_std: standard deviation per channel, by which the result is divided.
        crop_pct: size of the centre crop, relative to the largest crop of the same aspect ratio.
        bit_depth: number of bits that the values of 16-bit grey images use.
        published: options of a ``PerceiverImageProcessor`` to use instead. None: use the options above.
        kwargs: options of the base class.
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
        """Create the processor that is equivalent to a checkpoint's data module.

        Raises:
            UserError: if the checkpoint was not trained on images.
        """
        from perceiver_plugins.image.data.transforms import ImageFormat  # imports timm, which is slow

        image_format = ImageFormat.from_description(data)
        height, width = image_format.image_size
        size = {"height": height, "width": width}
        return cls(
            size,
            image_format.num_channels,
            image_format.mean,
            image_format.std,
            image_format.crop_pct,
            image_format.bit_depth,
            data.get("processor"),
        )

    @property
    def image_format(self) -> ImageFormat | PublishedFormat:
        """Format of the processed images."""
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
        """Prepare images for the model.

        Args:
            images: one or several images, as Pillow images or arrays.
            return_tensors: "pt" for torch tensors. None: numpy arrays.
            kwargs: options of other image processors, which are ignored.

        Returns:
            ``pixel_values`` (b, channels, height, width).
        """
        from perceiver_plugins.image.data.decoding import decode

        image_format = self.image_format
        flat: Any = make_flat_list_of_images(images)
        pil_images: list[Image.Image] = [to_pil_image(image) for image in flat]
        # Copies, since decoding rotates images in place.
        decoded = [decode(image.copy(), self.num_channels, self.bit_depth) for image in pil_images]
        pixel_values = [image_format.pixel_values([image])[0].numpy() for image in decoded]
        return BatchFeature({"pixel_values": np.stack(pixel_values)}, tensor_type=return_tensors)
