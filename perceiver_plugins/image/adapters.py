"""Image input adapters: a feature map, row by row, with position encodings appended to its channels."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core import AdaptedInput, Batch, FourierPositions, InputAdapter, Linear, PositionLayout
from perceiver_plugins.image.config import (
    FourierImageEncoderConfig,
    ImageConvEncoderConfig,
    ImageLearnedEncoderConfig,
    ImagePatchesEncoderConfig,
    ImagePixelsEncoderConfig,
    ImageStagesEncoderConfig,
    ImageTimmEncoderConfig,
)


class ImageInputAdapter(InputAdapter):
    """Base class of image input adapters. Reads ``pixel_values`` of a batch.

    Subclasses implement :meth:`features` and :meth:`positions`, and :meth:`grid` unless the feature map has the size
    of the image. Submodules whose weights are all frozen stay in evaluation mode during training, so that the running
    statistics of their norms do not change.

    Args:
        num_channels: channels of an image.
        num_feature_channels: channels of the feature map.
        num_position_channels: channels of a position encoding.
        image_size: default height and width of images; other sizes may work as well.
    """

    def __init__(
        self, num_channels: int, num_feature_channels: int, num_position_channels: int, image_size: tuple[int, int]
    ):
        super().__init__(num_feature_channels + num_position_channels)
        self.num_channels = num_channels
        self.image_size = image_size

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the feature map of an image. Its m elements are the input positions.

        Raises:
            ValueError: if the adapter cannot process images of that size.
        """
        return height, width

    def features(self, pixel_values: Tensor) -> Tensor:
        """Compute the feature map (b, channels, height, width) of images (b, channels, height, width)."""
        raise NotImplementedError(f"{type(self).__name__}.features")

    def positions(self, features: Tensor) -> Tensor:
        """Compute the position encodings (m, channels) of a feature map (b, channels, height, width)."""
        raise NotImplementedError(f"{type(self).__name__}.positions")

    def position_layout(self) -> PositionLayout:
        grid = self.grid(*self.image_size)
        return PositionLayout(self.positions(torch.empty(1, 0, *grid)).unflatten(0, grid))

    def check_data(self, data: Any) -> None:
        """Check that the adapter can process the images of a data module.

        Raises:
            ValueError: if their number of channels or their size does not fit.
        """
        num_channels, size = getattr(data, "num_channels", None), getattr(data, "image_size", None)
        if num_channels is not None and num_channels != self.num_channels:
            raise ValueError(
                f"the data's num_channels={num_channels} does not fit the model's num_channels={self.num_channels}"
            )
        if size is not None:
            self.grid(*size)

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        return {"pixel_values": torch.randn(batch_size, self.num_channels, *self.image_size, generator=generator)}

    def forward(self, batch: Batch) -> AdaptedInput:
        """Adapt ``batch["pixel_values"]`` (b, channels, height, width), floating point, of any height and width.

        Raises:
            ValueError: if the shape or type is wrong, or if the adapter cannot process images of that size.
        """
        pixel_values: Tensor = batch["pixel_values"]
        if pixel_values.dim() != 4 or pixel_values.shape[1] != self.num_channels:
            raise ValueError(
                f"pixel_values of shape {tuple(pixel_values.shape)}: must be (images, channels, height, width) with "
                f"num_channels={self.num_channels} channels"
            )
        if not pixel_values.is_floating_point():
            raise ValueError(f"pixel_values of type {pixel_values.dtype}: must be floating point numbers")
        self._set_frozen_to_eval()
        features = self.features(pixel_values)
        positions = self.positions(features).to(features.dtype).expand(features.shape[0], -1, -1)
        return AdaptedInput(torch.cat([features.flatten(2).transpose(1, 2), positions], dim=-1))

    def train(self, mode: bool = True) -> ImageInputAdapter:
        super().train(mode)
        self._set_frozen_to_eval()
        return self

    def _set_frozen_to_eval(self) -> None:
        # Called in `forward` as well: weights may be frozen after the last call of `train`.
        for module in self.children():
            trainable = [parameter.requires_grad for parameter in module.parameters()]
            if trainable and not any(trainable):
                module.eval()


class FourierImageInputAdapter(ImageInputAdapter):
    """Base class of adapters that append Fourier position encodings to a feature map of any size.

    Args:
        config: the encoder's configuration.
        num_feature_channels: channels of the feature map.
        reduction: stride of the feature map in pixels.
    """

    def __init__(self, config: FourierImageEncoderConfig, num_feature_channels: int, reduction: int = 1):
        fourier_positions = FourierPositions(config.num_frequency_bands, config.max_resolution)
        height, width = config.max_resolution
        image_size = (height * reduction, width * reduction)
        super().__init__(config.num_channels, num_feature_channels, fourier_positions.num_channels, image_size)
        self.fourier_positions = fourier_positions

    def positions(self, features: Tensor) -> Tensor:
        return self.fourier_positions(features.shape[2:], features.device, features.dtype)


class ImagePixelsInputAdapter(FourierImageInputAdapter):
    """Pixels with Fourier position encodings.

    Args:
        config: the encoder's configuration.
    """

    def __init__(self, config: ImagePixelsEncoderConfig):
        super().__init__(config, config.num_channels)

    @classmethod
    def from_config(cls, config: ImagePixelsEncoderConfig) -> ImagePixelsInputAdapter:
        return cls(config)

    def features(self, pixel_values: Tensor) -> Tensor:
        return pixel_values


class ImageLearnedInputAdapter(ImageInputAdapter):
    """1x1 convolution features with learned position embeddings.

    The embeddings are interpolated bicubically for images of another size than the configuration's.

    Args:
        config: the encoder's configuration.
    """

    def __init__(self, config: ImageLearnedEncoderConfig):
        super().__init__(config.num_channels, config.num_conv_channels, config.num_position_channels, config.image_size)
        height, width = config.image_size
        self.conv = nn.Conv2d(config.num_channels, config.num_conv_channels, kernel_size=1)
        self.position_embeddings = nn.Parameter(torch.empty(height * width, config.num_position_channels))
        self.positions_projection = Linear(config.num_position_channels, config.num_position_channels)
        for weight in (self.conv.weight, self.position_embeddings, self.positions_projection.weight):
            nn.init.normal_(weight, 0.0, config.init_scale)
        for bias in (self.conv.bias, self.positions_projection.bias):
            nn.init.zeros_(bias)  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, config: ImageLearnedEncoderConfig) -> ImageLearnedInputAdapter:
        return cls(config)

    def position_layout(self) -> PositionLayout:
        return replace(super().position_layout(), table=self.position_embeddings)

    def features(self, pixel_values: Tensor) -> Tensor:
        return self.conv(pixel_values)

    def positions(self, features: Tensor) -> Tensor:
        size = tuple(features.shape[2:])
        if not torch.compiler.is_exporting() and size == self.image_size:  # dynamic in an export
            return self.positions_projection(self.position_embeddings)
        grid = self.position_embeddings.T.unflatten(1, self.image_size)[None]
        resized = nn.functional.interpolate(grid, size=size, mode="bicubic", align_corners=False)
        return self.positions_projection(resized[0].flatten(1).T)


class ConvStem(nn.Module):
    """Convolutional stem: 7x7 convolution, BatchNorm and ReLU, then 3x3 max-pooling, each with stride 2.

    The convolution is padded by 3 and the pooling is not padded, as for the published weights and in ``transformers``:
    224 pixels become 55 positions (56 in the paper's code).

    Args:
        num_channels: channels of an image.
        num_conv_channels: output channels.
    """

    def __init__(self, num_channels: int, num_conv_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(num_channels, num_conv_channels, kernel_size=7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(num_conv_channels)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.norm(self.conv(x)).relu())


class ImageConvInputAdapter(FourierImageInputAdapter):
    """Features of a convolutional stem with Fourier position encodings.

    Args:
        config: the encoder's configuration.
    """

    def __init__(self, config: ImageConvEncoderConfig):
        super().__init__(config, config.num_conv_channels, reduction=4)
        self.stem = ConvStem(config.num_channels, config.num_conv_channels)

    @classmethod
    def from_config(cls, config: ImageConvEncoderConfig) -> ImageConvInputAdapter:
        return cls(config)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        if min(height, width) < 5:
            raise ValueError(f"images of {height}x{width} pixels are too small (at least 5x5)")
        return ((height + 1) // 2 - 1) // 2, ((width + 1) // 2 - 1) // 2

    def features(self, pixel_values: Tensor) -> Tensor:
        self.grid(*pixel_values.shape[2:])
        return self.stem(pixel_values)


class SafeBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm that trains on a single position of a single image, which has no variance, with running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (b, c, height, width)."""
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


class Conv3x3(nn.Sequential):
    """3x3 convolution, BatchNorm and ReLU.

    Args:
        num_channels: input channels.
        num_output_channels: output channels.
    """

    def __init__(self, num_channels: int, num_output_channels: int):
        super().__init__(
            nn.Conv2d(num_channels, num_output_channels, kernel_size=3, padding=1, bias=False),
            SafeBatchNorm2d(num_output_channels),
            nn.ReLU(),
        )


class ConvStage(nn.Module):
    """3x3 convolution, 2x2 max-pooling and residual 3x3 convolutions.

    Height and width are halved and rounded up.

    Args:
        num_channels: input channels.
        num_output_channels: output channels.
        num_residual_layers: residual convolutions.
    """

    def __init__(self, num_channels: int, num_output_channels: int, num_residual_layers: int):
        super().__init__()
        self.conv = Conv3x3(num_channels, num_output_channels)
        self.pool = nn.MaxPool2d(kernel_size=2, ceil_mode=True)
        self.residual_layers = nn.ModuleList(
            Conv3x3(num_output_channels, num_output_channels) for _ in range(num_residual_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv(x))
        for layer in self.residual_layers:
            x = x + layer(x)
        return x


class ImageStagesInputAdapter(FourierImageInputAdapter):
    """Features of a small residual convolutional network with Fourier position encodings.

    Args:
        config: the encoder's configuration.
    """

    def __init__(self, config: ImageStagesEncoderConfig):
        super().__init__(config, config.num_conv_channels, reduction=2**config.num_stages)
        widths = [config.num_conv_channels // 2**halvings for halvings in reversed(range(config.num_stages))]
        self.stages = nn.Sequential(
            *(
                ConvStage(before, after, config.num_residual_layers_per_stage)
                for before, after in pairwise([config.num_channels, *widths])
            )
        )

    @classmethod
    def from_config(cls, config: ImageStagesEncoderConfig) -> ImageStagesInputAdapter:
        return cls(config)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        stride = 2 ** len(self.stages)
        return -(-height // stride), -(-width // stride)

    def features(self, pixel_values: Tensor) -> Tensor:
        # Convolutions on CPUs are faster with channels last.
        return self.stages(pixel_values.contiguous(memory_format=torch.channels_last))


class ImagePatchesInputAdapter(FourierImageInputAdapter):
    """Linearly embedded, non-overlapping patches with Fourier position encodings.

    Images are zero-padded at the right and bottom to a multiple of the patch size.

    Args:
        config: the encoder's configuration.
    """

    def __init__(self, config: ImagePatchesEncoderConfig):
        super().__init__(config, config.num_patch_channels, reduction=config.patch_size)
        self.patch_size = config.patch_size
        self.conv = nn.Conv2d(config.num_channels, config.num_patch_channels, config.patch_size, config.patch_size)
        nn.init.normal_(self.conv.weight, 0.0, config.init_scale)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, config: ImagePatchesEncoderConfig) -> ImagePatchesInputAdapter:
        return cls(config)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return -(-height // self.patch_size), -(-width // self.patch_size)

    def features(self, pixel_values: Tensor) -> Tensor:
        height, width = pixel_values.shape[2:]
        return self.conv(nn.functional.pad(pixel_values, (0, -width % self.patch_size, 0, -height % self.patch_size)))


class ImageTimmInputAdapter(FourierImageInputAdapter):
    """Feature map of a timm model with Fourier position encodings.

    Args:
        config: the encoder's configuration.

    Raises:
        UnknownNameError: if timm has no model of that name.
        UserError: if the model has no such feature map, or if its weights cannot be loaded.
    """

    def __init__(self, config: ImageTimmEncoderConfig):
        from perceiver_plugins.image.backbones import TimmBackbone  # imports timm

        backbone = TimmBackbone(config)
        super().__init__(config, backbone.num_channels, backbone.reduction)
        self.image_size = backbone.image_size or self.image_size
        self.backbone = backbone
        if config.freeze_backbone:
            backbone.requires_grad_(False).eval()

    @classmethod
    def from_config(cls, config: ImageTimmEncoderConfig) -> ImageTimmInputAdapter:
        return cls(config)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return self.backbone.grid(height, width)

    def features(self, pixel_values: Tensor) -> Tensor:
        return self.backbone(pixel_values)
