"""Configurations of the image input adapters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from perceiver_core.config import EncoderConfig, require, require_positive


def require_size(config: Any, *fields: str) -> None:
    """Convert each of ``fields`` to a tuple (height, width).

    Raises:
        ValueError: if one is not a pair of integers of at least 1.
    """
    for field in fields:
        value = getattr(config, field)
        is_size = isinstance(value, list | tuple) and len(value) == 2 and all(type(n) is int and n >= 1 for n in value)
        require(is_size, config, field, "must be a height and a width, whole numbers of at least 1")
        setattr(config, field, tuple(value))


@dataclass
class ImageEncoderConfig(EncoderConfig):
    """Base configuration of image encoders.

    Args:
        num_channels: channels of an image: 3 (RGB) or 1 (greyscale).
    """

    num_channels: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_channels")


@dataclass
class FourierImageEncoderConfig(ImageEncoderConfig):
    """Base configuration of image encoders with Fourier position encodings.

    Args:
        num_frequency_bands: frequencies per dimension; each contributes a sine and a cosine.
        max_resolution: height and width of the feature map that the encodings resolve; the highest frequency is half
            of it. Images of any size can be processed.
    """

    num_frequency_bands: int = 64
    max_resolution: tuple[int, int] = (224, 224)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_frequency_bands")
        require_size(self, "max_resolution")


@dataclass
class ImagePixelsEncoderConfig(FourierImageEncoderConfig):
    """Encoder of pixels with Fourier position encodings (Perceiver IO, arXiv 2107.14795, section 4.5)."""


@dataclass
class ImageLearnedEncoderConfig(ImageEncoderConfig):
    """Encoder of 1x1 convolution features with learned position embeddings (Perceiver IO, section 4.5).

    Args:
        num_conv_channels: output channels of the 1x1 convolution.
        image_size: height and width of the images and of the grid of embeddings. The embeddings are interpolated for
            images of another size.
        num_position_channels: channels of a position embedding, before and after its linear projection.
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
    """Encoder of the features of a convolutional stem with Fourier position encodings (Perceiver IO, section 4.5).

    Args:
        num_conv_channels: output channels of the stem, whose stride is 4 pixels.
    """

    num_conv_channels: int = 64
    max_resolution: tuple[int, int] = (56, 56)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_conv_channels")


@dataclass
class ImageStagesEncoderConfig(FourierImageEncoderConfig):
    """Encoder of the features of a small residual convolutional network with Fourier position encodings.

    A stem of 3x3 convolutions learns much from few images (Xiao et al., "Early Convolutions Help Transformers See
    Better", arXiv 2106.14881).

    Args:
        num_conv_channels: output channels of the last stage. Each stage has twice as many as the one before.
        num_stages: stages, each of which halves height and width.
        num_residual_layers_per_stage: residual convolutions at the end of each stage.
    """

    num_conv_channels: int = 128
    num_stages: int = 3
    num_residual_layers_per_stage: int = 1
    num_frequency_bands: int = 4
    max_resolution: tuple[int, int] = (8, 8)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_conv_channels", "num_stages")
        require(self.num_residual_layers_per_stage >= 0, self, "num_residual_layers_per_stage", "must be at least 0")
        factor = 2 ** (self.num_stages - 1)
        is_divisible = self.num_conv_channels % factor == 0
        rule = f"must be divisible by {factor} for num_stages={self.num_stages}"
        require(is_divisible, self, "num_conv_channels", rule)


@dataclass
class ImagePatchesEncoderConfig(FourierImageEncoderConfig):
    """Encoder of linearly embedded, non-overlapping patches with Fourier position encodings.

    Args:
        patch_size: height and width of a patch in pixels. Images are zero-padded at the right and bottom to a multiple
            of it.
        num_patch_channels: channels of an embedded patch.
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
    """Encoder of a feature map of a timm model with Fourier position encodings.

    Args:
        timm_model: name of the model, with or without the tag of its weights (``resnet18.a1_in1k``).
        pretrained: start from timm's pretrained weights, which are downloaded once.
        freeze_backbone: keep the model's weights and the running statistics of its norms fixed.
        out_index: index of the feature map; -1: the last one.
        image_size: height and width of the images, for models with a fixed input size (vision transformers). None:
            timm's default. Other models process images of any size and ignore it.
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
        require(bool(self.timm_model), self, "timm_model", "must be the name of a timm model")
        if self.image_size is not None:
            require_size(self, "image_size")

    def without_params(self) -> Self:
        return replace(super().without_params(), pretrained=False)
