"""Configurations of the image input adapters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from perceiver_core.config import EncoderConfig, require, require_positive


def require_size(config: Any, *fields: str) -> None:
    """Makes each of ``fields`` a tuple (height, width).

    Raises:
        ValueError: if one is something else than two whole numbers of at least 1.
    """
    for field in fields:
        value = getattr(config, field)
        is_size = isinstance(value, list | tuple) and len(value) == 2 and all(type(n) is int and n >= 1 for n in value)
        require(is_size, config, field, "must be a height and a width, whole numbers of at least 1")
        setattr(config, field, tuple(value))


@dataclass
class ImageEncoderConfig(EncoderConfig):
    """What the encoders of images have in common.

    Args:
        num_channels: channels of an image: 3 for colours, 1 for shades of grey.
    """

    num_channels: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_channels")


@dataclass
class FourierImageEncoderConfig(ImageEncoderConfig):
    """What the encoders of images with Fourier positions have in common.

    Args:
        num_frequency_bands: frequencies of the positions in each of the two dimensions; each is a sine and a cosine.
        max_resolution: height and width, in places of the input array, that the positions resolve: their highest
            frequency is half of it. It need not equal the size of the images, which may be any.
    """

    num_frequency_bands: int = 64
    max_resolution: tuple[int, int] = (224, 224)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_frequency_bands")
        require_size(self, "max_resolution")


@dataclass
class ImagePixelsEncoderConfig(FourierImageEncoderConfig):
    """An encoder of pixels, with Fourier positions (Perceiver IO, arXiv 2107.14795, section 4.5)."""


@dataclass
class ImageLearnedEncoderConfig(ImageEncoderConfig):
    """An encoder of pixels, each mapped to more channels, with learned positions (Perceiver IO, section 4.5).

    Args:
        num_conv_channels: channels that a 1x1 convolution maps a pixel to.
        image_size: height and width of the images, and of the grid of learned positions. For images of another size
            the positions are interpolated.
        num_position_channels: channels of a learned position, before and after its linear projection.
    """

    num_conv_channels: int = 256
    image_size: tuple[int, int] = (224, 224)
    num_position_channels: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_conv_channels", "num_position_channels")
        require_size(self, "image_size")


@dataclass
class ImageConvEncoderConfig(FourierImageEncoderConfig):
    """An encoder of the features of a small convolutional network, with Fourier positions (Perceiver IO, section 4.5).

    Args:
        num_conv_channels: channels of the features, each of which stands for 4x4 pixels.
    """

    num_conv_channels: int = 64
    max_resolution: tuple[int, int] = (56, 56)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_conv_channels")


@dataclass
class ImagePatchesEncoderConfig(FourierImageEncoderConfig):
    """An encoder of patches that do not overlap, with Fourier positions.

    Args:
        patch_size: height and width of a patch in pixels. Images whose sides are no multiples of it are filled up with
            zeros at the right and at the bottom.
        num_patch_channels: channels that a patch is mapped to.
    """

    patch_size: int = 16
    num_patch_channels: int = 256
    num_frequency_bands: int = 16
    max_resolution: tuple[int, int] = (14, 14)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "patch_size", "num_patch_channels")


@dataclass
class ImageTimmEncoderConfig(FourierImageEncoderConfig):
    """An encoder of a feature map of any model of timm, with Fourier positions.

    Args:
        timm_model: name of the model, with or without the tag of its weights (``resnet18.a1_in1k``).
        pretrained: start from timm's weights, which are downloaded once.
        freeze_backbone: keep the model as it is in training: its weights, and the statistics of its norms.
        out_index: which of the model's feature maps; -1 is the last one.
        image_size: height and width of the images, for models that are made for one size (vision transformers). None:
            the size that timm made the model for. Other models take images of any size, and do not need it.
    """

    timm_model: str = "resnet18"
    pretrained: bool = False
    freeze_backbone: bool = False
    out_index: int = -1
    image_size: tuple[int, int] | None = None
    num_frequency_bands: int = 16
    max_resolution: tuple[int, int] = (7, 7)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.timm_model), self, "timm_model", "must name a model of timm")
        if self.image_size is not None:
            require_size(self, "image_size")

    def without_params(self) -> Self:
        return replace(super().without_params(), pretrained=False)
