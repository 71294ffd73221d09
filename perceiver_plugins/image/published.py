"""Preprocessing of published models by the image processor of ``transformers``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from perceiver_plugins.image.data.decoding import MAX_BIT_DEPTH
from perceiver_plugins.image.data.transforms import Box, ImageFormat
from perceiver_plugins.sdk.errors import one_line
from perceiver_registry.errors import UserError

KEY = "processor"
"""Entry of a model's data description with the options of the image processor."""

DEFAULTS: dict[str, Any] = {
    "do_center_crop": True,
    "crop_size": {"height": 256, "width": 256},
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
"""Options of ``PerceiverImageProcessor``."""

RESAMPLING = {0: "nearest", 1: "Lanczos", 2: "bilinear", 3: "bicubic"}
"""Resampling methods that ``transformers`` supports, by Pillow's numbers."""

CLASSES = (
    *("PerceiverImageProcessor", "PerceiverImageProcessorFast", "PerceiverImageProcessorPil"),
    "PerceiverFeatureExtractor",
)
"""Names of the class in different versions of ``transformers``."""

WITHOUT_EFFECT = (
    *("image_processor_type", "feature_extractor_type", "processor_class", "_processor_class"),
    *("default_to_square", "device", "disable_grouping", "return_tensors", "input_data_format", "do_convert_rgb"),
)
"""Entries without effect here: images are always converted to RGB."""


@dataclass(frozen=True)
class PublishedFormat:
    """Preprocessing by a published model's image processor, with the interface of ``ImageFormat`` for prediction.

    Args:
        options: options of the image processor, with the keys of :data:`DEFAULTS`.
    """

    options: Mapping[str, Any]

    num_channels = 3
    bit_depth = MAX_BIT_DEPTH

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PublishedFormat:
        """Create the format from the content of a ``preprocessor_config.json``.

        Raises:
            ValueError: if ``PerceiverImageProcessor`` does not support an option.
        """
        _check_supported(config)
        options = {name: default if config.get(name) is None else config[name] for name, default in DEFAULTS.items()}
        _check_switches(options)
        for name in ("size", "crop_size"):
            options[name] = dict(zip(("height", "width"), _sides(name, options[name]), strict=True))
        for name in ("image_mean", "image_std"):
            options[name] = _per_channel(name, options[name])
        if 0 in options["image_std"]:
            raise ValueError("image_std must not be 0")
        if not options["rescale_factor"] > 0:
            raise ValueError(f"rescale_factor={options['rescale_factor']} must be more than 0")
        image_format = cls(options)
        image_format.pixel_values([Image.new("RGB", (9, 7))])  # reports other errors before the first image
        return image_format

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of resized images."""
        return self.options["size"]["height"], self.options["size"]["width"]

    def description(self) -> dict[str, Any]:
        """Describe the options and the closest ``ImageFormat``, the default for fine-tuning, as plain data."""
        options = self.options
        scale = 255 * (options["rescale_factor"] if options["do_rescale"] else 1.0)
        mean, std = options["image_mean"], options["image_std"]
        if not options["do_normalize"]:
            mean, std = [0.0] * 3, [1.0] * 3
        crop_pct = min(1.0, self.image_size[0] / options["crop_size"]["height"]) if options["do_center_crop"] else 1.0
        nearest = ImageFormat(
            self.image_size, 3, tuple(value / scale for value in mean), tuple(value / scale for value in std), crop_pct
        )
        return nearest.description() | {KEY: dict(options)}

    @cached_property
    def processor(self) -> Any:
        """The image processor of ``transformers``."""
        import transformers

        return transformers.PerceiverImageProcessor(**self.options)

    def pixel_values(self, images: Sequence[Image.Image]) -> Tensor:
        """Convert RGB images of one size to model inputs (b, 3, height, width), float32."""
        values = self.processor(list(images))["pixel_values"]
        return torch.stack([torch.as_tensor(value).float() for value in values])

    def centre(self, image: Image.Image) -> Box:
        """Compute the centre crop of an image."""
        if not self.options["do_center_crop"]:
            return 0, 0, image.width, image.height
        smaller = min(image.width, image.height)
        height, width = (
            min(full, self.options["size"][side] / self.options["crop_size"][side] * smaller)
            for side, full in (("height", image.height), ("width", image.width))
        )
        left, top = (image.width - width) / 2, (image.height - height) / 2
        return left, top, left + width, top + height


def _check_supported(config: Mapping[str, Any]) -> None:
    """Raise ValueError if a ``preprocessor_config.json`` has another class, or options of another class."""
    class_name = config.get("image_processor_type", config.get("feature_extractor_type"))
    if class_name not in (None, *CLASSES):
        raise ValueError(f"its class is {class_name!r}, not PerceiverImageProcessor")
    for name, value in config.items():
        known = name in DEFAULTS or name in WITHOUT_EFFECT
        if not known and value not in (None, False, "channels_first"):
            raise ValueError(f"{name}={value!r} is not supported")


def _check_switches(options: Mapping[str, Any]) -> None:
    """Raise ValueError if a switch is not a boolean, or the resampling method is unknown."""
    for name, default in DEFAULTS.items():
        if isinstance(default, bool) and not isinstance(options[name], bool):
            raise ValueError(f"{name}={options[name]!r} must be true or false")
    if options["resample"] not in RESAMPLING:
        choice = ", ".join(f"{number} ({method})" for number, method in RESAMPLING.items())
        raise ValueError(f"resample={options['resample']!r} must be one of {choice}")


def image_format_of(description: Mapping[str, Any]) -> ImageFormat | PublishedFormat:
    """Create the image format of a model from the description of its data.

    Raises:
        UserError: if the model was not trained on images, or its options are invalid.
    """
    if KEY not in description:
        return ImageFormat.from_description(description)
    return published_format(description[KEY], "the checkpoint's image processor")


def published_format(config: Mapping[str, Any], source: str) -> PublishedFormat:
    """Create the image format that a file describes.

    Args:
        config: the content of the file.
        source: name of the file in messages.

    Raises:
        UserError: if an option is invalid or unsupported.
    """
    try:
        return PublishedFormat.from_config(config)
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:  # values of any type
        raise UserError(f"{source} cannot be used: {one_line(error)}") from error


def _sides(name: str, size: Any) -> tuple[int, int]:
    """Return the height and width. Older files have one number for both."""
    sides: tuple[Any, Any] = (size.get("height"), size.get("width")) if isinstance(size, Mapping) else (size, size)
    if not all(type(side) is int and side >= 1 for side in sides):
        raise ValueError(f"{name}={size!r} must be a height and a width")
    return sides[0], sides[1]


def _per_channel(name: str, value: Any) -> list[float]:
    values = [float(channel) for channel in (value if isinstance(value, list | tuple) else [value] * 3)]
    if len(values) != 3:
        raise ValueError(f"{name}={value!r} must be one number, or one for each of 3 channels")
    return values
